"""Reports: what runs left on disk as one HTML page that needs nothing else, with Markdown and CSV beside it.

`sources` reads, `comparison`, `curves` and `pictures` choose what deserves the page, `run_page`, `sweep_page` and
`reproduction_page` lay it out, `render` and `writing` put it down. Only files are read; nothing here imports torch.
"""
