"""Reports: the files of runs as one self-contained HTML page, with Markdown and CSV beside it.

`sources` reads, `curves`, `trends` and `pictures` choose the content, `run_page`, `sweep_page` and `reproduction_page` arrange it,
`render` and `writing` write it. Only files are read; nothing here imports torch.
"""
