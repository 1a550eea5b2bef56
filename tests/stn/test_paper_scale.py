"""The digit tables at the paper's scale: equal numbers of weights, halved outputs, no cell that the paper lacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.report.judgement import conditions_of_run, shipped_config
from paperbench.report.layout import Cell, load
from paperbench.stn.distortions import make_distortion
from paperbench.stn.layers import count_parameters
from paperbench.stn.networks import SpatialTransformerNet
from paperbench.stn.training import digits_per_input, make_net

CELLS = [cell for name in ("stn/table-1", "stn/section-4.1", "stn/table-4") for cell in load(name).cells("paper")]
AROUND = 400_000
"""Learnable parameters of every net of an experiment (A.4)."""


def config_of(cell: Cell) -> Any:
    return compose(cell.experiment, cell.overrides, installed_only=True).config


def name_of(cell: Cell) -> str:
    return f"{cell.row} {cell.column}"


@pytest.mark.parametrize("cell", CELLS, ids=name_of)
def test_every_net_of_the_tables_has_around_400_000_weights(cell: Cell) -> None:
    assert abs(count_parameters(make_net(config_of(cell))) - AROUND) < 0.01 * AROUND


@pytest.mark.parametrize(
    ("experiment", "overrides", "sampled", "output"),
    [
        ("stn-mnist", ("distortion=r", "model=st-fcn"), 28, 28),
        ("stn-mnist", ("model=st-fcn",), 42, 21),
        ("stn-mnist", ("distortion=rts", "model=st-fcn", "transform=tps"), 42, 21),
        ("stn-mnist", ("distortion=rts", "model=st-cnn"), 56, 28),  # 21 pixels are too few for its convolutions
        ("stn-mnist", ("distortion=tc", "model=st-fcn"), 60, 30),
        ("stn-mnist", ("distortion=tc", "model=st-cnn", "transform=projective"), 60, 30),
        ("stn-addition", ("model=st-fcn",), 42, 21),
        ("stn-addition", ("model=2st-fcn", "transform=projective"), 42, 21),
    ],
)
def test_the_transformers_output_is_half_the_canvas_on_rts_and_tc(
    experiment: str, overrides: tuple[str, ...], sampled: int, output: int
) -> None:
    config = compose(experiment, ["scale=paper", "data=mnist", *overrides]).config
    net, canvas = make_net(config), make_distortion(config.distortion).canvas
    assert isinstance(net, SpatialTransformerNet)
    assert {transformer.grid.size for transformer in net.spatial_transformers()} == {(sampled, sampled)}
    images = torch.zeros(1, digits_per_input(config), canvas, canvas)
    assert net.classifier_input(images).shape[-2:] == (output, output)


def test_a_width_of_ones_own_replaces_that_of_the_paper_scale() -> None:
    config = compose("stn-mnist", ["scale=paper", "distortion=tc", "model=fcn", "model.units=256"]).config
    assert count_parameters(make_net(config)) == 990_218
    same = compose("stn-mnist", ["scale=paper", "distortion=rts", "model=st-fcn", "model.parameters=120000"]).config
    assert abs(count_parameters(make_net(same)) - 120_000) < 0.01 * 120_000


def test_table_1_has_the_papers_cells_at_its_scale_and_more_at_others() -> None:
    layout = load("stn/table-1")
    at_paper = layout.cells("paper")
    assert len(at_paper) == 32
    assert all(cell.published is not None for cell in at_paper)
    assert layout.columns_at("paper") == ("R", "RTS", "P", "E")
    assert layout.columns_at("short") == ("R", "RTS", "P", "E", "TC")
    assert {cell.row for cell in layout.cells("short")} - {cell.row for cell in at_paper} == {
        "deformable convolution, as many weights as ST-CNN"
    }


# --- deviations and choices -------------------------------------------------------------------------------------------


def conditions_of(cell: Cell) -> Any:
    assert cell.published is not None
    return conditions_of_run(cell.published, shipped_config(cell))


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS[::5] if cell.published and not cell.published.doubt], ids=name_of
)
def test_the_shipped_configuration_deviates_in_nothing_and_names_what_it_chose(cell: Cell) -> None:
    conditions = conditions_of(cell)
    assert conditions.deviations == ()
    for choice in ("momentum 0.9", "widths that give every net about 400,000 weights"):
        assert any(text.startswith(choice) for text in conditions.choices), choice


def test_a_choice_about_one_distortion_is_made_for_it_alone() -> None:
    said = {cell.column: " ".join(conditions_of(cell).choices) for cell in CELLS if cell.row == "FCN"}
    for word, columns in (("P: corners", {"P"}), ("E: the spline", {"E"}), ("clutter", {"TC"})):
        assert {column for column, text in said.items() if word in text} == columns


def test_of_co_localisation_what_the_paper_says_otherwise_is_a_deviation_and_the_rest_a_choice() -> None:
    conditions = conditions_of(load("stn/table-5").cells("paper")[0])
    assert len(conditions.deviations) == 3
    for word in ("search over a grid", "weight of 0.3", "Adam"):
        assert any(word in text for text in conditions.deviations), word
    for word in ("count alike", "between 0.3 and 1", "28x28 square", "5,947", "64 filters", "400 steps"):
        assert any(word in text for text in conditions.choices), word
