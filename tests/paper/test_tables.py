"""Tables: numbers by hand, intervals, nothing bold within noise, the same bytes."""

import math

import numpy as np
import pandas as pd
import pytest
from studies import make_history, make_reliability, make_runs, make_settings, table_cells

from rrn.paper import report, statistics, table_format, tables
from rrn.runtime import csv_files

STUDY = {"cps_cutmix": (40, 42, 44), "rrn": (46, 47, 51)}
T_OF_TWO, T_OF_ONE = 4.302653, 12.706205  # quantiles 0.975 of Student's t, as printed in any table


def numbers(means, **more):
    return tables.ablation(make_runs(means, **more)).numbers.set_index("method")


# ---- differences


def test_interval_by_hand():
    found = statistics.paired_interval(pd.Series([6.0, 5.0, 7.0]))
    assert found["difference"] == 6 and found["difference_std"] == 1
    assert found["difference_high"] - 6 == pytest.approx(T_OF_TWO / math.sqrt(3), abs=1e-5)
    assert 6 - found["difference_low"] == pytest.approx(T_OF_TWO / math.sqrt(3), abs=1e-5)
    two = statistics.paired_interval(pd.Series([1.0, 3.0, math.nan]))
    assert two["difference_high"] == pytest.approx(2 + T_OF_ONE, abs=1e-5)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_there_is_no_interval_of_one(values):
    assert all(map(math.isnan, statistics.paired_interval(pd.Series(values, dtype=float)).values()))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02)),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, and never less again
        ((0.01, math.nan, 0.4), (0.02, math.nan, 0.4)),
        ((0.6, 0.7), (1, 1)),
        ((math.nan, math.nan), (math.nan, math.nan)),
    ],
)
def test_holm_by_hand(values, expected):
    assert statistics.holm(pd.Series(values)).tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("size", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_what_can_be_found_is_as_in_tables_of_power(size, pairs):
    """A paired t-test needs so many pairs for Cohen's small, medium and large effects, as G*Power says."""
    assert statistics.detectable(1, pairs) <= size < statistics.detectable(1, pairs - 1)
    assert statistics.detectable(2, 8) == pytest.approx(2 * 1.1560, abs=1e-3)
    assert statistics.detectable(1, 2) > 10 and statistics.detectable(0, 3) == 0


@pytest.mark.parametrize("n", [3, 8])
def test_what_can_be_found_is_found_four_times_in_five(n):
    draws = np.random.default_rng(0).normal(statistics.detectable(1, n), 1, (4000, n))
    low = [statistics.paired_interval(pd.Series(row))["difference_low"] for row in draws]
    assert (np.array(low) > 0).mean() == pytest.approx(0.8, abs=0.02)


EIGHT = {"cps_cutmix": (40,) * 8, "rrn": (41, 43) * 4, "cps": (39.9, 40.3) * 4}
"""Differences of 2 ± 1.069 and 0.1 ± 0.214: t is 5.29 and 1.32."""


def test_rows_of_eight_seeds_are_tested_and_corrected():
    table = numbers(EIGHT)
    assert table.loc["rrn", "p_value"] == pytest.approx(0.00113, abs=2e-5)
    assert table.loc["cps", "p_value"] == pytest.approx(0.2275, abs=2e-4)
    assert table.loc["rrn", "p_adjusted"] == 2 * table.loc["rrn", "p_value"]
    assert table.loc["cps", "p_adjusted"] == table.loc["cps", "p_value"]
    assert table.loc["cps_cutmix", ["p_value", "p_adjusted", "detectable"]].isna().all()
    assert table.loc["rrn", "detectable"] == pytest.approx(1.1560 * math.sqrt(8 / 7), abs=1e-3)
    other = make_runs({"cps_cutmix": (40,) * 8, "rrn": (41, 43) * 4}, partition="1of8")
    both = tables.ablation(pd.concat([make_runs(EIGHT), other])).numbers.set_index(["partition", "method"])
    alone = both.loc[("1of8", "rrn")]
    assert alone["p_adjusted"] == alone["p_value"]
    assert both.loc[("1of16", "rrn"), "p_adjusted"] == table.loc["rrn", "p_adjusted"]


def test_every_row_is_set_against_every_other_one_of_its_partition():
    runs = pd.concat([make_runs(STUDY | {"cps": (41, None, 45)}), make_runs({"rrn": (1, 2)}, partition="1of8")])
    table = statistics.each_pair(runs)
    assert table[["partition", "method", "other", "n"]].to_numpy().tolist() == [
        ["1of16", "rrn", "cps_cutmix", 3],
        ["1of16", "cps", "cps_cutmix", 2],
        ["1of16", "cps", "rrn", 2],
    ]
    assert table["difference"].tolist() == [6, 1, -5.5] and table["p_value"].isna().all()
    assert table.loc[0, "difference_high"] - 6 == pytest.approx(T_OF_TWO / math.sqrt(3), abs=1e-5)
    eight = statistics.each_pair(make_runs(EIGHT)).set_index(["method", "other"])
    assert eight.loc[("rrn", "cps_cutmix"), "p_value"] == pytest.approx(0.00113, abs=2e-5)


def test_pairs_count_and_not_seeds():
    """Seven of the eight seeds of rrn have a partner."""
    table = numbers(EIGHT | {"cps_cutmix": (None, *[40] * 7)})
    assert table.loc["rrn", "n"] == 8 and table["p_value"].isna().all()


def test_rows_that_never_or_always_differ_by_the_same_have_a_p_value():
    table = numbers({"cps_cutmix": (40,) * 8, "rrn": (40,) * 8, "cps": (41,) * 8})
    assert table.loc[["rrn", "cps"], "p_value"].tolist() == [1, 0]
    assert table.loc[["rrn", "cps"], "detectable"].tolist() == [0, 0]


def test_numbers_by_hand():
    table = numbers(STUDY)
    assert table.index.tolist() == ["cps_cutmix", "rrn"]
    assert table["n"].tolist() == [3, 3] and table["miou_mean"].tolist() == [42, 48]
    assert table.loc["cps_cutmix", "miou_std"] == pytest.approx(2)
    assert table.loc["rrn", "miou_std"] == pytest.approx(math.sqrt(7))
    row = table.loc["rrn"]  # paired over seeds: 6, 5, 7
    assert (row["difference"], row["difference_std"]) == (pytest.approx(6), pytest.approx(1))
    assert row["difference_low"] == pytest.approx(6 - T_OF_TWO / math.sqrt(3), abs=1e-5)
    assert table.loc["cps_cutmix", tables.DIFFERENCE].isna().all()
    assert table["ensemble_std"].tolist() == [0, 0]
    assert row["detectable"] == pytest.approx(3.2640, abs=1e-4) and math.isnan(row["p_value"])
    assert table.loc["rrn", ["parameters", "macs"]].tolist() == [1_500_000, 2 * 10**9]
    assert table["best"].tolist() == [False, True]


def test_only_common_seeds_are_paired():
    table = numbers({"cps_cutmix": (40, None, 44), "rrn": (46, 90, 51)})
    assert table.loc["rrn", "n"] == 3 and table.loc["rrn", "difference"] == pytest.approx(6.5)
    alone = numbers({"cps_cutmix": (40, None, None), "rrn": (46, 47, 51)})
    assert alone[tables.DIFFERENCE].isna().all(axis=None) and not alone["best"].any()


def test_another_study_gives_the_reference_if_the_own_has_none():
    main = make_runs({"cps_cutmix": (40, 42, 44)}).assign(name="main")
    table = tables.ablation(pd.concat([make_runs({"rrn": (46, 47, 51)}), main]))
    assert table.numbers["difference"].iloc[0] == pytest.approx(6)
    assert table.numbers["best"].tolist() == [True, False]
    assert table_cells(table.markdown())[0][:3] == ["name", "partition", "method"]
    own = tables.ablation(pd.concat([make_runs({"rrn": (46, 47), "cps_cutmix": (45, 46)}), main]))
    assert own.numbers["difference"].iloc[0] == pytest.approx(1)


def test_partitions_do_not_mix():
    other = make_runs({"cps_cutmix": (60, 62, 64), "rrn": (61, 63, 65.5)}, partition="1of8")
    table = tables.ablation(pd.concat([make_runs(STUDY), other])).numbers
    assert table["difference"].tolist()[1::2] == [pytest.approx(6), pytest.approx(3.5 / 3)]
    assert table["best"].tolist() == [False, True, False, True]


# ---- bold


def test_a_lead_within_noise_is_not_bold():
    noisy = tables.ablation(make_runs({"cps_cutmix": (40, 42, 44), "rrn": (42, 42, 48)}))  # leads by 2, 0, 4
    assert not noisy.numbers["best"].any()
    assert "**" not in noisy.markdown() and "textbf" not in noisy.latex()
    assert "none is bold" in noisy.caption


def test_a_small_lead_that_every_seed_shows_is_bold():
    """Seeds differ by 10 points; the lead is one, on each of them: pairing sees it."""
    table = tables.ablation(make_runs({"cps_cutmix": (40, 50, 60), "rrn": (41, 51.1, 61)}))
    assert table.numbers["best"].tolist() == [False, True]
    assert "**51.03 ± 10.00**" in table.markdown()


def test_the_lead_must_hold_over_every_row():
    means = {"cps_cutmix": (40, 42, 44), "other": (45.9, 47.2, 50.9), "rrn": (46, 47, 51)}
    assert not numbers(means)["best"].any()
    means["other"] = (44.9, 46.2, 49.9)
    assert numbers(means)["best"].tolist() == [False, False, True]


def test_two_seeds_that_happen_to_differ_by_the_same_make_nothing_bold():
    assert not numbers({"cps_cutmix": (40, 50), "rrn": (40.5, 50.5)})["best"].any()


def test_a_difference_is_to_the_reference_of_the_same_name_first():
    runs = pd.concat(
        [make_runs({"cps_cutmix": (10, 11)}).assign(name="other"), make_runs({"cps_cutmix": (40, 41), "rrn": (42, 43)})]
    )
    table = tables.ablation(runs).numbers.set_index(["name", "method"])
    assert table.loc[("study", "rrn"), "difference"] == pytest.approx(2)


def test_a_class_that_is_absent_in_a_seed_says_how_many_seeds_know_it():
    rows = [
        {
            "name": "study",
            "partition": "1of16",
            "method": m,
            "seed": s,
            "labels": "partition",
            "class": "sky",
            "iou_mean": v,
        }
        for m, values in {"cps_cutmix": (40, 41, 42), "rrn": (None, 43, 45)}.items()
        for s, v in enumerate(values)
    ]
    classes = pd.DataFrame(rows).assign(iou_ensemble=1.0, pixels=1)
    assert tables.per_class(classes).numbers["n"].tolist() == [3, 2]
    assert tables.class_gain(classes).numbers["n"].tolist() == [2]


def test_rows_that_are_the_same_are_not_bold():
    assert not numbers({"cps_cutmix": (40, 42), "rrn": (40, 42)})["best"].any()


def test_a_single_row_leads_nobody():
    assert not numbers({"rrn": (46, 47, 51)})["best"].any()


def test_the_upper_bound_does_not_compete():
    means = {"supervised": (40, 41, 42), "rrn": (50, 51, 52.5), "supervised_all": (70, 71, 72.5)}
    table = numbers(means, labels={"supervised_all": "all"})
    assert table["labels"].tolist() == ["partition", "partition", "all"]
    assert table["best"].tolist() == [False, True, False]
    assert table["difference"].isna().all()  # there is no cps_cutmix
    everything = numbers(means, labels={"supervised_all": "all"}, partition="all")
    assert everything["best"].tolist() == [False, False, True]


def test_one_seed_has_no_deviation_no_difference_and_no_winner():
    table = tables.ablation(make_runs({"cps_cutmix": (42,), "rrn": (47,)}))
    columns = ["miou_std", "ensemble_std", "difference_std", *tables.DIFFERENCE, "p_value", "p_adjusted", "detectable"]
    assert table.header == ["partition", "method", "n", "mIoU", "ensemble", "difference"]
    assert table.numbers[columns].isna().all(axis=None) and not table.numbers["best"].any()
    assert "**" not in table.markdown() and "±" not in table.markdown()
    assert "n = 1, so no deviation and no ranking." in table.markdown()


# ---- text


def test_markdown_and_latex():
    table = tables.ablation(make_runs(STUDY))
    lines = table.markdown().splitlines()
    assert {len(line) for line in lines[:4]} == {len(lines[0])}  # columns stand below each other
    assert [cell[-1] for cell in lines[1].strip("|").split("|")] == ["-"] * 2 + [":"] * 5  # words left, numbers right
    assert table_cells(table.markdown())[::2] == [
        ["partition", "method", "n", "mIoU", "ensemble", "difference", "detectable"],
        ["1of16", "rrn", "3", "**48.00 ± 2.65**", "50.00 ± 0.00", "+6.00 [+3.52, +8.48]", "3.26"],
    ]
    assert lines[4] == "" and "n = 3" in lines[5] and "95 % interval (Student t), undecided if it holds 0;" in lines[5]
    assert "seeds so noisy show with 80 % power at two-sided 5 %." in lines[5] and "Holm" not in lines[5]
    assert lines[5].endswith(" A segmenter: 1.50 M parameters, 2.000 G MACs.")
    text = table.latex()
    assert r"1of16 & cps\_cutmix & 3 & 42.00 $\pm$ 2.00 & 50.00 $\pm$ 0.00 &  &  \\" in text
    assert r"\textbf{48.00 $\pm$ 2.65}" in text and r"\begin{tabular}{llrrrrr}" in text
    assert (
        text.index("\\caption{") < text.index("n = 3") < text.index("\\label{tab:ablation}") < text.index("\\toprule")
    )
    assert text.count("{") == text.count("}") and "95 \\%" in text


def test_an_interval_that_holds_0_is_undecided():
    table = tables.ablation(make_runs({"cps_cutmix": (40, 42, 44), "rrn": (42, 42, 48), "cps": (41, 43, 45)}))
    assert [row[5] for row in table.rows] == ["", "+2.00 [-2.97, +6.97] undecided", "+1.00 [+1.00, +1.00]"]
    assert "difference" not in tables.ablation(make_runs({"rrn": (42, 42, 48)})).caption


def test_tested_rows_have_a_column_more():
    table = tables.ablation(make_runs(EIGHT))
    assert table.header[-3:] == ["difference", "detectable", "p (Holm)"] and len(table.header) == table_format.WIDE
    assert [row[-2:] for row in table.rows] == [["", ""], ["1.24", "0.002"], ["0.25", "0.227"]]
    assert "p: paired t-test, corrected by Holm for the rows of a partition." in table.caption
    sure = tables.ablation(make_runs(EIGHT | {"rrn": (50, 51) * 4}))
    assert sure.rows[1][-1] == "<0.001" and "$<$0.001" in sure.latex()


def test_networks_of_other_sizes_are_all_named():
    runs = make_runs(STUDY)
    runs.loc[runs["method"] == "rrn", "macs"] = 3 * 10**9
    caption = tables.ablation(runs).caption
    assert caption.endswith("A segmenter: 1.50 M parameters, 2.000 G MACs or 1.50 M parameters, 3.000 G MACs.")


def test_a_wide_table_spans_the_page():
    for columns, wide in ((8, False), (9, True)):
        text = table_format.Table("x", pd.DataFrame(), ["a"] * columns, [["1"] * columns], 1, "c").latex()
        lines = text.splitlines()
        assert lines[0] == r"\begin{table*}" * wide + r"\begin{table}" * (not wide)
        assert lines[-1] == lines[0].replace("begin", "end") and text.count("{") == text.count("}")
        fitted = lines.index(r"\resizebox{\textwidth}{!}{%") + 1 if wide else -1
        assert fitted < 0 or (lines[fitted].startswith(r"\begin{tabular}") and lines[-2] == "}")


def test_a_minus_is_set_as_one():
    text = tables.ablation(make_runs({"cps_cutmix": (40, 42, 44), "rrn": (39, 41, 43)})).latex()
    assert "$-$1.00 [$-$1.00, $-$1.00]" in text


def test_the_caption_names_the_split_and_the_seeds():
    runs = make_runs({"cps_cutmix": (40, 42, None), "rrn": (46, 47, 51)})
    assert "mIoU on val in per cent" in tables.ablation(runs, "val").caption
    assert "n = 2 to 3" in tables.ablation(runs).markdown()


def test_latex_escapes_everything_and_markdown_keeps_its_cells():
    table = table_format.Table("x", pd.DataFrame(), [r"a&b_%#{}$\x~^"], [["p|q"]], 1, "50 % †")
    assert r"a\&b\_\%\#\{\}\$\textbackslash{}x\textasciitilde{}\textasciicircum{} \\" in table.latex()
    assert r"\caption{50 \% $^\dagger$}" in table.latex()
    assert table_cells(table.markdown())[1] == [r"p\|q"]


ODD = [
    *("<script>alert('&')</script>", "**x**", "a|b", "a\\|b", "[x](y)", "`x`", "$x$ $y$", "*x", "50 %_#{}~^", "NA"),
    'a,"b"',
]


def test_names_of_classes_with_marks_are_words_in_every_file(tmp_path):
    numbers = pd.DataFrame({"class": ODD, "iou_mean": 1.0})
    table = table_format.Table("t", numbers, ["class", "rrn"], [[name, "**1.00**"] for name in ODD], 1, "Of marks.")
    table.write(tmp_path)
    assert csv_files.read_csv(tmp_path / "t.csv")["class"].tolist() == ODD
    shown = report.read_table(tmp_path / "t.md").rows
    assert [row[0] for row in shown] == [report.Cell(name, False, False) for name in ODD]
    assert all(row[1] == report.Cell("1.00", True, True) for row in shown)
    text = table.markdown()
    assert "<" not in text and "&lt;script>alert('&amp;')" in text and r"\[x\](y)" in text and r"\$x\$" in text
    lines = table.latex().splitlines()
    assert not [line for line in lines if line.startswith(("[", "*"))]  # an option of the line before
    assert r"\$x\$ \$y\$ & \textbf{1.00} \\" in lines


def test_files_are_the_same_bytes_and_read_back(tmp_path):
    for name in ("first", "second"):
        tables.ablation(make_runs(STUDY)).write(tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["ablation.csv", "ablation.md", "ablation.tex"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    read = pd.read_csv(tmp_path / "first/ablation.csv")
    assert read.columns.tolist() == [
        *("name", "partition", "method", "labels", "n", "miou_mean", "miou_std", "image_se"),
        *("miou_ensemble", "ensemble_std"),
        *("difference", "difference_std", "difference_low", "difference_high"),
        *("p_value", "p_adjusted", "detectable", "parameters", "macs", "best"),
    ]
    assert read["macs"].tolist() == [2 * 10**9] * 2 and read["difference_low"].round(2).tolist()[1] == 3.52


# ---- partitions


def two_partitions():
    return pd.concat([make_runs(STUDY), make_runs({"cps_cutmix": (50, 52), "rrn": (51, 51)}, partition="1of8")])


def make_quoted(**more):
    row = {"method": "CPS", "dataset": "voc", "backbone": "resnet50", "crop": "512", "lists": "cps"}
    row |= {"partition": "1of8", "miou": 73.2, "epoch": "best", "source": "arXiv", **more}
    return pd.DataFrame([row, {**row, "partition": "1of4", "miou": 75.0}])


def test_one_partition_makes_no_table_of_partitions():
    assert tables.partitions(make_runs(STUDY)) is None


def test_partitions_by_hand():
    table = tables.partitions(two_partitions())
    assert table.header == ["method", "1of16", "1of16 difference", "1of8", "1of8 difference"]
    assert table.rows == [
        ["cps_cutmix", "42.00 ± 2.00 (3)", "", "51.00 ± 1.41 (2)", ""],
        ["rrn", "**48.00 ± 2.65** (3)", "+6.00 [+3.52, +8.48]", "51.00 ± 0.00 (2)", "+0.00 [-12.71, +12.71] undecided"],
    ]
    assert "difference to cps_cutmix, paired over seeds, with its 95 % interval" in table.caption
    assert "n = 2 to 3 in brackets" in table.caption and "†" not in table.caption
    assert table.numbers["n"].tolist() == [3, 3, 2, 2] and not table.numbers["source"].any()
    alike = tables.partitions(two_partitions().query("seed < 2"))
    assert alike.rows[0] == ["cps_cutmix", "41.00 ± 1.41", "", "51.00 ± 1.41", ""] and "; n = 2, mean" in alike.caption


def test_partitions_without_a_reference_have_no_differences():
    runs = two_partitions().query("method == 'rrn'")
    assert tables.partitions(runs).header == ["method", "1of16", "1of8"]


def test_a_row_that_was_not_run_is_empty():
    runs = pd.concat([two_partitions(), make_runs({"cps": (30, 31)}, partition="1of8")])
    assert tables.partitions(runs).rows[-1] == ["cps", "", "", "30.50 ± 0.71 (2)", "-20.50 [-26.85, -14.15]"]


def test_quoted_numbers_are_marked_and_have_their_source():
    table = tables.partitions(two_partitions(), "val", make_quoted())
    assert table.rows[-1] == ["CPS† (best epoch)", "", "", "73.20", ""]  # 1of4 was not run
    footnote = "† quoted, not measured here: CPS: resnet50, crop 512, lists cps, best epoch, arXiv."
    assert table.caption.endswith(footnote)
    assert r"CPS$^\dagger$ (best epoch)" in table.latex()
    last = table.numbers.iloc[-1]
    assert (last["name"], last["miou_mean"], last["epoch"], last["source"]) == ("quoted", 73.2, "best", "arXiv")
    assert not last["best"]
    unknown = tables.partitions(two_partitions(), "val", make_quoted(epoch="unknown"))
    assert unknown.rows[-1][0] == "CPS†" and "unknown epoch" in unknown.caption


def test_quoted_numbers_of_other_partitions_leave_no_trace():
    runs = two_partitions()
    table = tables.partitions(runs, quoted=make_quoted(partition="1of2"))
    assert table.markdown() == tables.partitions(runs).markdown()


# ---- variants

GRID = {f"grid_{side}": {"filter": {"by": "region_score"}, "grid": side} for side in (2, 4)}


def make_variants(rows, methods, means=None, **more):
    settings = make_settings(methods, [0, 1], rows=rows)
    runs = make_runs(means or {method: (50 + place, 51) for place, method in enumerate(methods)})
    history = make_history({method: (0.0, 0.4, 0.6, 0.8) for method in methods})
    return tables.variants(runs, settings, history, make_reliability(methods, **more))


def test_settings_that_differ_are_found():
    assert tables.differing(make_settings(["cps_cutmix", "grid_2", "grid_4"], [0], rows=GRID)) == {
        "cps_cutmix": {"filter.by": "none", "grid": ""},
        "grid_2": {"filter.by": "region_score", "grid": "2"},
        "grid_4": {"filter.by": "region_score", "grid": "4"},
    }


def test_settings_without_effect_do_not_count():
    keep = {f"keep_{n}": {"filter": {"by": "region_score", "fraction": n / 100}} for n in (50, 90)}
    tau = {f"tau_{n}": {"filter": {"by": "region_score", "keep": "threshold", "tau": n / 100}} for n in (60, 70)}
    found = tables.differing(make_settings(["supervised", *keep, *tau], [0], rows=keep | tau))
    columns = ("consistency", "filter.keep", "filter.tau", "filter.fraction")
    assert {row: tuple(values.get(c) for c in columns) for row, values in found.items()} == {
        "supervised": ("no", "", "", ""),
        "keep_50": ("yes", "fraction", "", "0.5"),
        "keep_90": ("yes", "fraction", "", "0.9"),
        "tau_60": ("yes", "threshold", "0.6", ""),
        "tau_70": ("yes", "threshold", "0.7", ""),
    }
    assert set(found["tau_60"]) == set(columns)  # filter.by is none in supervised, where it has no effect
    votes = {"votes": {"filter": {"by": "region_score"}, "rho": "votes"}}
    assert tables.differing(make_settings(["local_filter", "votes"], [0], rows=votes))["votes"] == {"rho": "votes"}


def test_a_row_without_strong_views_differs_from_one_with():
    rows = {"strong": {"strong": {"jitter": 0.5, "gray": 0.2, "blur": 0.0}}}
    found = tables.differing(make_settings(["supervised", "cps_cutmix", "strong"], [0], rows=rows))
    shifts = {row: (values["strong.jitter"], values["strong.gray"]) for row, values in found.items()}
    assert shifts == {"supervised": ("", ""), "cps_cutmix": ("0.0", "0.0"), "strong": ("0.5", "0.2")}
    assert not {"strong", "strong.blur"} & set(found["strong"])


def test_the_decay_of_a_teacher_counts_where_there_is_one():
    student = {"networks": "student_teacher"}
    rows = {"slow": {**student, "teacher_decay": 0.999}, "fast": student, "ema": {"teacher": "ema"}}
    found = tables.differing(make_settings(["supervised", "cps_cutmix", *rows], [0], rows=rows))
    shown = {row: (values["networks"], values["teacher_decay"]) for row, values in found.items()}
    assert shown == {
        "supervised": ("", ""),
        "cps_cutmix": ("pair", ""),
        "slow": ("student_teacher", "0.999"),
        "fast": ("student_teacher", "0.99"),
        "ema": ("pair", "0.99"),
    }


def test_variants_by_hand():
    methods = ["cps_cutmix", "grid_2", "grid_4"]
    table = make_variants(GRID, methods, {"cps_cutmix": (50, 52), "grid_2": (51, 53), "grid_4": (49, 53)})
    row = table.numbers.set_index("method").loc["grid_2"]
    assert (row["coverage"], row["weight"]) == (pytest.approx(0.8), pytest.approx(0.4))  # the last of four rows
    assert row["auroc_region_score"] == pytest.approx(0.70) and row["auroc_confidence"] == pytest.approx(0.72)
    assert row["accuracy_kept"] == pytest.approx(0.80) and row["difference"] == pytest.approx(1)
    head = ["method", "filter", "grid", "n", "kept (%)", "weight", "AUROC", "AUROC of confidence", "kept right (%)"]
    assert table.header == [*head, "mIoU", "difference"]
    assert table.rows[1] == [
        *("grid_2", "region_score", "2", "2", "80.0", "0.40", "0.700", "0.720", "80.0", "52.00 ± 1.41"),
        "+1.00 [+1.00, +1.00]",
    ]
    assert table.rows[0][1:3] == ["none", ""] and table.rows[0][-1] == ""
    assert "n = 2" in table.caption and "last quarter" in table.caption
    assert [cell[-1] for cell in table.markdown().splitlines()[1].split("|")[1:5]] == ["-"] * 3 + [":"]


def test_the_rows_own_score_says_what_is_kept():
    found = make_variants({}, ["confidence_filter", "random_filter", "local_filter"]).numbers.set_index("method")
    assert found["accuracy_kept"].tolist() == pytest.approx([0.82, 0.75, 0.80])  # at random as right as everything


def test_rows_without_discriminators_have_no_region_score():
    row = make_variants({}, ["cps_cutmix", "supervised"], scores=("confidence", "agreement")).numbers.iloc[0]
    assert math.isnan(row["auroc_region_score"]) and math.isnan(row["accuracy_kept"])
    assert row["auroc_confidence"] == pytest.approx(0.70)


def test_rows_that_differ_in_their_name_only_work():
    twins = {"one": {"filter": {"by": "region_score"}}, "two": {"filter": {"by": "region_score"}}}
    table = make_variants(twins, ["one", "two"])
    assert table.header[:2] == ["method", "n"] and [row[0] for row in table.rows] == ["one", "two"]


def test_partitions_do_not_mix_what_was_kept_and_known():
    settings = make_settings(["cps_cutmix", "rrn"], [0, 1], partitions=("1of16", "1of8"))
    means = {"cps_cutmix": (40, 41), "rrn": (42, 43)}
    runs = pd.concat([make_runs(means), make_runs(means, partition="1of8")])
    first = make_history({"cps_cutmix": (1, 1, 1, 1), "rrn": (0.9, 0.9, 0.9, 0.9)})
    second = make_history({"cps_cutmix": (1, 1, 1, 1), "rrn": (0.5, 0.5, 0.5, 0.5)}).assign(partition="1of8")
    reliability = make_reliability(["cps_cutmix", "rrn"])
    other = reliability.assign(partition="1of8", auroc=reliability["auroc"] / 2)
    table = tables.variants(runs, settings, pd.concat([first, second]), pd.concat([reliability, other]))
    found = table.numbers.set_index(["partition", "method"])
    assert found.loc[("1of16", "rrn"), "coverage"] == 0.9 and found.loc[("1of8", "rrn"), "coverage"] == 0.5
    aurocs = found.xs("rrn", level="method")["auroc_region_score"]
    assert aurocs["1of8"] == pytest.approx(aurocs["1of16"] / 2)


def test_the_threshold_matters_to_votes():
    votes = {f"votes_{n}": {"filter": {"by": "region_score", "tau": n / 10}, "rho": "votes"} for n in (5, 7)}
    found = tables.differing(make_settings(list(votes), [0, 1], rows=votes))
    assert [row["filter.tau"] for row in found.values()] == ["0.5", "0.7"]


def test_variants_take_the_reference_from_beside():
    settings = make_settings(["local_filter"], [0, 1])
    beside = make_runs({"cps_cutmix": (40, 41)}).assign(name="main")
    runs = pd.concat([make_runs({"local_filter": (42, 43)}), beside])
    history = make_history({"local_filter": (0.9,) * 4})
    table = tables.variants(runs, settings, history, make_reliability(["local_filter"]))
    assert table.numbers["method"].tolist() == ["local_filter"]
    assert table.numbers["difference"].tolist() == [pytest.approx(2)]


# ---- classes


def make_classes(means=STUDY, partition="1of16"):
    runs = make_runs(means, partition=partition)
    sky = runs.assign(**{"class": "sky", "iou_mean": runs["miou_mean"], "iou_ensemble": 50.0, "pixels": 7})
    return pd.concat([sky, sky.assign(**{"class": "road", "iou_mean": 30.0, "iou_ensemble": math.nan, "pixels": 9})])


def test_per_class_by_hand():
    table = tables.per_class(make_classes())
    assert table.numbers.columns.tolist() == [
        *("name", "partition", "method", "class", "iou_mean", "iou_std", "iou_ensemble", "pixels", "n"),
    ]
    sky = table.numbers.query("method == 'rrn' and `class` == 'sky'").iloc[0]
    assert (sky["iou_mean"], sky["iou_std"], sky["n"]) == (48, pytest.approx(math.sqrt(7)), 3)
    assert table.header == ["class", "cps_cutmix", "rrn"]
    assert table.rows == [["sky", "42.00 ± 2.00", "48.00 ± 2.65"], ["road", "30.00 ± 0.00", "30.00 ± 0.00"]]
    assert "n = 3, mean ± standard deviation over seeds" in table.caption


def test_per_class_of_several_partitions_and_of_one_seed():
    classes = pd.concat([make_classes(), make_classes(partition="1of8")])
    table = tables.per_class(classes)
    assert table.header[:2] == ["partition", "class"] and [row[0] for row in table.rows] == ["1of16"] * 2 + ["1of8"] * 2
    one = tables.per_class(make_classes({"cps_cutmix": (40,), "rrn": (41,)}))
    assert "±" not in one.markdown() and one.caption.endswith("; n = 1.")


def test_class_gain_by_hand():
    table = tables.class_gain(make_classes(), "val")
    assert table.header == ["class", "rrn"]
    assert table.rows == [["sky", "+6.00 [+3.52, +8.48]"], ["road", "+0.00 [+0.00, +0.00]"]]
    assert table.numbers["difference_low"].tolist() == [pytest.approx(3.5159, abs=1e-4), 0]
    assert "on val less that of cps_cutmix" in table.caption


@pytest.mark.parametrize("means", [{"rrn": (46, 47)}, {"cps_cutmix": (46, 47)}, {"cps_cutmix": (40,), "rrn": (41,)}])
def test_there_is_no_gain_without_something_to_compare(means):
    assert tables.class_gain(make_classes(means)) is None
