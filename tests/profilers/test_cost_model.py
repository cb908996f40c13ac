"""Cost models on boards whose physics are known: a roofline gives the times, so that held-out errors are exact."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from profilers.cost_model import VARIANTS, CostModel, ModelUnusable, roofline_seconds
from profilers.cost_model_errors import PRIORS, Evaluation, PriorError, TooFewRows, error_of, evaluate_priors
from profilers.cost_model_features import Vocabulary, features, roofline_s
from profilers.cost_model_prior import learned_prior
from profilers.cost_model_rows import Conditions, Observation
from profilers.cost_model_sweep import MAX_ELEMENTS, MAX_MACS, MAX_WEIGHTS, sweep
from profilers.prior import roofline_prior
from profilers.simulation import CORTEX_A72, UNPACKED_INT4, Roofline
from profilers.sites import sites_of
from recipes.compilers.graph import Graph, Operator, Port, Tensor
from recipes.compilers.shapes import CONVERSIONS, LayerShape
from recipes.compilers.tflite.layers import map_layers
from recipes.compilers.tflite.legal import DYNAMIC_8, STATIC_8, WEIGHT_ONLY_4, legal_choices
from recipes.target import Target
from search.space import FLOAT32, LayerConfig, Scheme

PI = Conditions("rpi4", "litert", "2.3.0", 1)
JETSON = Conditions("jetson", "litert", "2.3.0", 1)
CONVOLUTION = LayerShape("CONV_2D", ((1, 16, 16, 32),), (64, 3, 3, 32), (1, 8, 8, 64))
OTHER = replace(
    CORTEX_A72, macs_per_cycle={**CORTEX_A72.macs_per_cycle, ("CONV_2D", "INT8", "INT8"): 1.0,
                                ("CONV_2D", "INT4", "FLOAT32"): 0.3, ("CONV_2D", UNPACKED_INT4, "FLOAT32"): 5.0,
                                ("FULLY_CONNECTED", "FLOAT32", "FLOAT32"): 6.0,
                                ("DEPTHWISE_CONV_2D", "FLOAT32", "FLOAT32"): 0.2},
    bandwidth_bytes_s=1e9, overhead_s=8e-6)
"""Physics that `CORTEX_A72` does not know of."""
POINTS = tuple(islice(sweep(7, "litert"), 700))


def rows_of(physics: Roofline, where: Conditions, points: Sequence[tuple[LayerShape, LayerConfig]] = POINTS,
            ) -> list[Observation]:
    return [Observation(shape, config, where, roofline_s(shape, config, physics, where.threads))
            for shape, config in points]


def uneven() -> list[Observation]:
    """Rows of a board on which dequantising costs three times what quantising costs."""
    return [replace(row, latency_s=3 * row.latency_s) if row.shape.kind == "DEQUANTIZE" else row
            for row in rows_of(OTHER, PI)]


@pytest.fixture(scope="module")
def trained() -> CostModel:
    return CostModel.train(uneven(), CORTEX_A72)


class TestFeatures:
    def of(self, shape: LayerShape, config: LayerConfig, where: Conditions = PI) -> dict[str, float]:
        vocabulary = Vocabulary(("ADD", "CONV_2D"), ("rpi4",), ("litert 2.3.0",))
        values = features(shape, config, where, vocabulary, CORTEX_A72)
        return dict(zip(vocabulary.columns, values, strict=True))

    def test_of_a_convolution(self) -> None:
        found = self.of(CONVOLUTION, STATIC_8)
        macs = 8 * 8 * 64 * 9 * 32
        assert found["log_macs"] == math.log2(1 + macs)
        assert (found["kernel"], found["stride"]) == (3, 2)
        assert (found["log_channels_in"], found["log_channels_out"]) == (math.log2(33), math.log2(65))
        assert found["log_positions"] == math.log2(65)
        weight_bytes, activation_bytes = 64 * 9 * 32, 16 * 16 * 32 + 8 * 8 * 64
        assert found["log_weight_bytes"] == math.log2(1 + weight_bytes)
        assert found["log_activation_bytes"] == math.log2(1 + activation_bytes)
        assert found["log_intensity"] == math.log2(macs / (weight_bytes + activation_bytes))
        assert (found["weight_bits"], found["activation_bits"], found["threads"]) == (8, 8, 1)
        assert found["log_roofline"] == math.log2(roofline_s(CONVOLUTION, STATIC_8, CORTEX_A72, 1))

    def test_of_the_same_in_other_formats(self) -> None:
        found = {config.label: self.of(CONVOLUTION, config) for config in legal_choices("CONV_2D", "litert")}
        assert len({tuple(values.values()) for values in found.values()}) == len(found) == 8
        for label, values in found.items():
            words = [scheme for scheme in Scheme if values[f"scheme={scheme}"]]
            assert words == [LayerConfig.from_label(label).scheme]
        assert found["weight_only_w4"]["log_weight_bytes"] < found["fp16"]["log_weight_bytes"]

    def test_words_of_the_vocabulary_have_a_column_and_others_have_none(self) -> None:
        here, there = self.of(CONVOLUTION, FLOAT32), self.of(CONVOLUTION, FLOAT32, JETSON)
        assert (here["operator=CONV_2D"], here["operator=ADD"], here["board=rpi4"]) == (1, 0, 1)
        assert here["runtime=litert 2.3.0"] == there["runtime=litert 2.3.0"] == 1
        assert there["board=rpi4"] == 0
        assert not any(value for name, value in self.of(
            LayerShape("GELU", ((4, 4),), None, (4, 4)), FLOAT32).items() if name.startswith("operator="))

    def test_a_second_operand_is_seen(self) -> None:
        alone = LayerShape("ADD", ((1, 9, 16), (1, 9, 1)), None, (1, 9, 16))
        whole = LayerShape("ADD", ((1, 9, 16), (1, 9, 16)), None, (1, 9, 16))
        constant = LayerShape("ADD", ((1, 9, 16),), (16,), (1, 9, 16))
        assert [self.of(shape, FLOAT32)["log_second_operand"] for shape in (alone, whole, constant)] == [
            math.log2(10), math.log2(145), math.log2(17)]

    @pytest.mark.parametrize("latency_s", [0.0, -1e-6, math.inf, math.nan])
    def test_a_latency_that_is_none_is_refused(self, latency_s: float) -> None:
        with pytest.raises(ValueError, match="latency above 0 s"):
            Observation(CONVOLUTION, FLOAT32, PI, latency_s)


class TestSweep:
    def test_the_same_seed_names_the_same_points_and_another_does_not(self) -> None:
        assert tuple(islice(sweep(7, "litert"), 700)) == POINTS
        assert not {shape.key for shape, _ in POINTS} & {shape.key for shape, _ in islice(sweep(8, "litert"), 700)}

    def test_every_shape_comes_in_every_legal_format_once(self) -> None:
        assert len(set(POINTS)) == len(POINTS)
        last = POINTS[-1][0]
        formats: dict[LayerShape, list[LayerConfig]] = {}
        for shape, config in POINTS:
            formats.setdefault(shape, []).append(config)
        for shape, configs in formats.items():
            legal = (FLOAT32,) if shape.kind in CONVERSIONS else legal_choices(shape.kind, "litert")
            assert tuple(configs) == legal[:len(configs)]
            assert shape == last or len(configs) == len(legal)

    def test_layers_are_such_as_networks_have(self) -> None:
        shapes = [shape for shape, _ in islice(sweep(0, "litert"), 6000)]
        assert max(shape.macs for shape in shapes) <= MAX_MACS
        assert max(math.prod(size) for shape in shapes for size in (*shape.inputs, shape.output)) <= MAX_ELEMENTS
        assert max(math.prod(shape.constant or ()) for shape in shapes) <= MAX_WEIGHTS
        assert {(s.kernel, s.stride) for s in shapes if s.kind == "CONV_2D"} == {
            (kernel, stride) for kernel in (1, 3, 5) for stride in (1, 2)}
        assert {s.kind for s in shapes} >= {
            "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "ADD", "MUL", "MEAN", "SOFTMAX", "GELU",
            *CONVERSIONS}

    def test_an_older_runtime_gets_what_it_computes_right(self) -> None:
        assert {config.scheme for _, config in islice(sweep(0, "tflite-runtime"), 300)} == {
            Scheme.FLOAT, Scheme.WEIGHT_ONLY, Scheme.STATIC}


class TestPrediction:
    def test_held_out_shapes_beat_a_constant_and_the_roofline_where_physics_differ(self) -> None:
        rows = rows_of(OTHER, PI)
        found = evaluate_priors(rows, CORTEX_A72)
        latency = np.array([row.latency_s for row in rows])
        constant = error_of(np.full(len(rows), float(np.median(latency))) * np.linspace(1, 1.0001, len(rows)), latency,
                            [0] * len(rows))
        errors = {name: error.median_relative for name, error in found.by_family.items()}
        assert set(errors) == set(PRIORS)
        assert errors["xgboost"] < 0.6 * constant.median_relative
        assert errors["both"] < 0.6 * errors["roofline"]
        assert found.chosen == min(errors, key=lambda name: errors[name]) == "both"
        assert found.by_family["both"].rank_correlation > found.by_family["roofline"].rank_correlation > 0.5
        assert found.by_board_kind is None

    def test_where_the_roofline_is_the_truth_it_is_chosen(self) -> None:
        found = evaluate_priors(rows_of(CORTEX_A72, PI), CORTEX_A72)
        assert found.by_family["roofline"].median_relative < 1e-9
        assert found.chosen == "roofline"

    def test_what_is_peculiar_to_a_family_cannot_be_known_of_a_held_out_one(self) -> None:
        dice = np.random.default_rng(0)
        rows = rows_of(CORTEX_A72, PI)
        luck = {family: float(np.exp(dice.normal())) for family in dict.fromkeys(row.family for row in rows)}
        found = evaluate_priors([replace(row, latency_s=row.latency_s * luck[row.family]) for row in rows], CORTEX_A72)
        assert found.by_family["both"].median_relative > 0.7 * found.by_family["roofline"].median_relative

    def test_a_model_must_beat_the_roofline_by_more_than_a_tie(self) -> None:
        def chosen(xgboost: float, both: float) -> str:
            errors = {"roofline": 0.1, "xgboost": xgboost, "both": both}
            return Evaluation(100, {name: PriorError(error, 1.0) for name, error in errors.items()}, None).chosen

        assert [chosen(0.3, 0.095), chosen(0.3, 0.08), chosen(0.05, 0.08), chosen(0.2, 0.2)] == [
            "roofline", "both", "xgboost", "roofline"]

    def test_a_kind_of_board_is_held_out_and_its_speed_is_no_error(self) -> None:
        fast = replace(OTHER, clock_hz=20 * OTHER.clock_hz, bandwidth_bytes_s=20 * OTHER.bandwidth_bytes_s,
                       overhead_s=OTHER.overhead_s / 20)
        found = evaluate_priors([*rows_of(OTHER, PI), *rows_of(fast, JETSON)], CORTEX_A72)
        assert found.by_board_kind is not None
        both = found.by_board_kind["both"].median_relative
        assert both < 0.3 * found.by_board_kind["roofline"].median_relative, "it knows the physics from the other kind"

    def test_saved_and_loaded_it_predicts_the_same(self, trained: CostModel) -> None:
        again = CostModel.from_bytes(trained.to_bytes())
        assert again.vocabulary == trained.vocabulary and again.rows == trained.rows == len(POINTS)
        for variant in VARIANTS:
            one, two = (model.predict(variant, POINTS[:200], PI, CORTEX_A72) for model in (trained, again))
            assert one.tolist() == two.tolist()
        assert again.to_bytes() == trained.to_bytes()

    def test_one_variant_knows_nothing_of_the_roofline(self, trained: CostModel) -> None:
        slow = replace(CORTEX_A72, clock_hz=CORTEX_A72.clock_hz / 8, bandwidth_bytes_s=1e8)
        alone, both = ((trained.predict(variant, POINTS[:50], PI, CORTEX_A72),
                        trained.predict(variant, POINTS[:50], PI, slow)) for variant in VARIANTS)
        assert alone[0].tolist() == alone[1].tolist()
        assert (both[0] != both[1]).all()

    def test_trained_twice_it_is_the_same(self, trained: CostModel) -> None:
        assert CostModel.train(uneven(), CORTEX_A72).to_bytes() == trained.to_bytes()

    def test_an_operator_that_was_never_measured_gets_the_scaled_roofline(self) -> None:
        points = [point for point in POINTS if point[0].kind != "DEPTHWISE_CONV_2D"]
        thrice = [replace(row, latency_s=3 * row.latency_s) for row in rows_of(CORTEX_A72, PI, points)]
        model = CostModel.train(thrice, CORTEX_A72)
        unknown = [point for point in POINTS if point[0].kind == "DEPTHWISE_CONV_2D"]
        for variant in VARIANTS:
            np.testing.assert_allclose(model.predict(variant, unknown, PI, CORTEX_A72),
                                       3 * roofline_seconds(unknown, PI, CORTEX_A72))
        assert model.predict("both", [], PI, CORTEX_A72).shape == (0,)

    def test_other_features_or_damage_are_named(self, trained: CostModel) -> None:
        document = json.loads(trained.to_bytes())
        with pytest.raises(ModelUnusable, match="trained with version 99 of the features, this program has version 1"):
            CostModel.from_bytes(json.dumps({**document, "features": 99}).encode())
        for wrong in (b"{", json.dumps({"features": 1}).encode(),
                      json.dumps({**document, "boosters": dict.fromkeys(VARIANTS, "AAAA")}).encode()):
            with pytest.raises(ModelUnusable, match="the model is damaged .* train it anew"):
                CostModel.from_bytes(wrong)

    def test_a_handful_of_rows_is_too_few(self) -> None:
        with pytest.raises(TooFewRows, match="50 measured layers are too few .* at least 100 are needed; 'orchestrator "
                                             "costmodel collect"):
            evaluate_priors(rows_of(OTHER, PI)[:50], CORTEX_A72)

    def test_the_error_ignores_a_scale_for_each_group_and_nothing_else(self) -> None:
        truth = np.array([1.0, 2.0, 4.0, 1.0, 2.0, 4.0])
        scaled = truth * np.array([5, 5, 5, 0.1, 0.1, 0.1])
        groups = ["a", "a", "a", "b", "b", "b"]
        assert error_of(scaled, truth, groups).median_relative == pytest.approx(0)
        assert error_of(scaled, truth, ["a"] * 6).median_relative > 0.5
        assert error_of(truth[::-1].copy(), truth, groups).rank_correlation < 0


def network() -> Graph:
    """Two convolutions, an addition that reads both, a softmax."""
    sizes = {"x": (1, 8, 8, 16), "u": (1, 8, 8, 16), "v": (1, 8, 8, 16), "s": (1, 8, 8, 16), "y": (1, 8, 8, 16)}
    tensors = [Tensor(name, "FLOAT32", size, False, 0) for name, size in sizes.items()]
    tensors += [Tensor(f"w{i}", "FLOAT32", (16, 3, 3, 16), True, i) for i in (1, 2)]
    operators = (Operator(0, "CONV_2D", (0, 5), (1,)), Operator(1, "CONV_2D", (1, 6), (2,)),
                 Operator(2, "ADD", (1, 2), (3,)), Operator(3, "SOFTMAX", (3,), (4,)))
    return Graph(tuple(tensors), operators, (Port("x", 0, 0),), (Port("y", 4, 0),))


class TestPrior:
    layers = map_layers(network(), Target("aarch64", "litert", "2.3.0"))
    sites = sites_of(layers)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_it_has_the_roofline_priors_shape_and_the_models_seconds(self, trained: CostModel, variant: str) -> None:
        which = next(v for v in VARIANTS if v == variant)
        found = learned_prior(self.layers, self.sites, trained, which, PI, CORTEX_A72)
        analytic = roofline_prior(self.layers, self.sites, CORTEX_A72, 1)
        assert found.sites.shape == analytic.sites.shape and found.edges.shape == analytic.edges.shape
        np.testing.assert_array_equal(found.sites > 0, analytic.sites > 0)
        np.testing.assert_array_equal(found.edges > 0, analytic.edges > 0)
        shape = LayerShape("CONV_2D", ((1, 8, 8, 16),), (16, 3, 3, 16), (1, 8, 8, 16))
        choices = self.layers.space.layers[0].choices
        for config in (FLOAT32, DYNAMIC_8, WEIGHT_ONLY_4):
            expected = trained.predict(which, [(shape, config)], PI, CORTEX_A72)[0]
            assert found.sites[0, 0, choices.index(config)] == pytest.approx(expected)

    def test_a_conversion_costs_what_its_direction_costs(self, trained: CostModel) -> None:
        found = learned_prior(self.layers, self.sites, trained, "both", PI, CORTEX_A72)
        size = (1, 8, 8, 16)
        quantise, dequantise = trained.predict(
            "both", [(LayerShape(kind, (size,), None, size), FLOAT32) for kind in CONVERSIONS], PI, CORTEX_A72)
        assert dequantise > 1.5 * quantise
        index = self.sites.graph.edges.index((0, 1))
        names = [[option.format for option in self.sites.graph.sites[i].options] for i in (0, 1)]
        to_int = found.edges[index, names[0].index("float"), names[1].index("int")]
        to_float = found.edges[index, names[0].index("int"), names[1].index("float")]
        readers = sum(start == 0 for start, _ in self.sites.graph.edges)  # each bears its share
        assert (readers * to_int, readers * to_float) == (pytest.approx(quantise), pytest.approx(dequantise))
        assert found.edges[index, names[0].index("int"), names[1].index("int")] == 0
