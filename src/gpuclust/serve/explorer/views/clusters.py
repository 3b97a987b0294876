"""Cards of all clusters, and the page of one cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from gpuclust.model.records import NOISE, CategoryShare, Cluster, Example, Rule
from gpuclust.serve.explorer import address, charts
from gpuclust.serve.explorer.cluster_edits import cluster_edits
from gpuclust.serve.explorer.items import can_listen, choose, item_card, navigate, query_param, words_and_groups
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import as_markdown, feature_word, fit, plural, reading, short, words
from gpuclust.serve.library import Pick

CARDS_IN_A_ROW = 3
MAX_CARDS = 30
PAGE = 10
PICKS: Mapping[Pick, str] = {"popular": "Most popular", "central": "Nearest the centre", "random": "Random"}
VIEWS = {"cards": "Cards", "compare": "Side by side"}
MAX_COMPARED = 8
WORDS = 5  # on a card


def clusters() -> None:
    """The Clusters page: the cluster in the address, else all clusters."""
    shown = open_export()
    wanted = query_param("cluster")
    known = {str(c): c for c in shown.clusters}
    if wanted in known:
        _one(shown, shown.clusters[known[wanted]])
        return
    if wanted is not None:
        st.warning(as_markdown(f"There is no cluster {short(wanted, 20)}."))
    _all(shown)


def _all(shown: OpenExport) -> None:
    st.title("Clusters", anchor=False)
    _accents(shown)
    view = st.segmented_control(
        "View", tuple(VIEWS), required=True, format_func=VIEWS.__getitem__, label_visibility="collapsed",
        **address.choice("view", tuple(VIEWS), "cards"),
    )  # fmt: skip
    if view == "compare":
        _side_by_side(shown)
        return
    listed = list(shown.clusters.values())
    pages = -(-len(listed) // MAX_CARDS)
    page = 1
    if pages > 1:
        page = int(st.number_input(f"Page of {pages}", 1, pages, width=130, **address.number("page", 1, pages, 1)))
    first = (page - 1) * MAX_CARDS
    if pages > 1:
        last = min(first + MAX_CARDS, len(listed))
        st.caption(f"Clusters {first + 1} to {last} of {len(listed)}, the largest first.")
    for start in range(first, min(first + MAX_CARDS, len(listed)), CARDS_IN_A_ROW):
        row = listed[start : min(start + CARDS_IN_A_ROW, first + MAX_CARDS)]
        for column, cluster in zip(st.columns(CARDS_IN_A_ROW), row, strict=False):
            with column:
                _card(shown, cluster)


def _accents(shown: OpenExport) -> None:
    """Colour the edge of each card; only numbers and validated colours are inserted into the style."""
    rules = (f".st-key-{_key(c)} {{ border-left: 6px solid {color}; }}" for c, color in shown.colors.items())
    st.html(f"<style>{' '.join(rules)}</style>")


def _key(cluster: int) -> str:
    return "card-noise" if cluster == NOISE else f"card-{cluster}"


def _card(shown: OpenExport, cluster: Cluster) -> None:
    with st.container(border=True, height="stretch", key=_key(cluster.cluster)):
        st.markdown(f"**{as_markdown(shown.name(cluster.cluster))}**")
        st.caption(f"{cluster.size:,} rows · {cluster.fraction:.1%}")
        lines = [_leading(cluster)]
        if cluster.top_groups:
            lines.append("Most often " + ", ".join(short(s.value, 30) for s in cluster.top_groups[:3]))
        if shown.has("title"):
            lines += [_label(e) for e in (cluster.popular or cluster.representatives)[:2]]
        st.text("\n".join(line for line in lines if line))
        if st.button(
            "Open", key=f"open-card-{cluster.cluster}", help=as_markdown(f"Open {shown.name(cluster.cluster)}")
        ):
            navigate("clusters", cluster=cluster.cluster)


def _leading(cluster: Cluster) -> str:
    """The three features with the largest z-scores, with their means, and the most frequent categories; the words that set a cluster of vectors
    apart."""
    if cluster.top_terms:
        return ", ".join(short(term.value, 30) for term in cluster.top_terms[:WORDS])
    by_z = sorted(cluster.numbers.items(), key=lambda pair: -abs(pair[1].z) if pair[1].z == pair[1].z else 0.0)
    said = [f"{feature_word(name)} {reading(name, stats.mean)}" for name, stats in by_z[:3]]
    columns = [*(c.column for c in cluster.categories[:3]), *(c.column for c in cluster.circular[:3])]
    return " · ".join([*said, *(f"{short(name, 30)}: {short(cluster.column(name), 40)}" for name in columns)])


def _label(example: Example) -> str:
    title = short(example.title or example.id, 60)
    return f"{title} – {short(example.creator.replace(';', ', '), 40)}" if example.creator else title


def _side_by_side(shown: OpenExport) -> None:
    if not shown.library.features:
        st.dataframe(words_and_groups(shown), hide_index=True, key="words")
        return
    order = charts.listed_clusters(shown)
    chosen = st.multiselect(
        "Clusters",
        order,
        format_func=lambda c: fit(shown.name(c), 60),
        **address.choices("clusters", order, order[:3], most=MAX_COMPARED),
    )
    if chosen:
        st.plotly_chart(
            charts.radar(shown, chosen), key="radar", config=charts.STILL, alt="Mean z-scores around a circle"
        )
        _note(charts.left_out_features(shown, charts.MAX_SPOKES))
    compared = order if len(order) <= charts.MAX_BARS else chosen or order[: charts.MAX_BARS]
    st.plotly_chart(
        charts.profile_heatmap(shown, compared), key="cluster-heat", config=charts.STILL, alt="Mean z-scores by cluster"
    )
    _note(charts.left_out_features(shown, charts.MAX_FEATURES))
    rows = [
        {"cluster": short(shown.name(c)), "rows": shown.clusters[c].size}
        | {words(f): float(f"{p.mean:.4g}") for f, p in shown.clusters[c].features.items()}
        for c in shown.clusters
    ]
    st.caption("Means in original units, all clusters and features")
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="means")


def _one(shown: OpenExport, cluster: Cluster) -> None:
    if st.button("All clusters", icon=":material/arrow_back:", key="all-clusters"):
        navigate("clusters")
    st.title(as_markdown(shown.name(cluster.cluster)), anchor=False)
    if cluster.description:
        st.text(cluster.description)
    others = [f"Generated name: {cluster.generated_name}"] if cluster.generated_name else []
    others += [f"Proposed by a language model: {cluster.proposed_name}"] if cluster.proposed_name else []
    if others:
        st.text("\n".join(others))
    cluster_edits(shown, cluster)
    with st.container(horizontal=True):
        st.metric("Rows", f"{cluster.size:,}", border=True, width="content")
        st.metric("Share", f"{cluster.fraction:.1%}", border=True, width="content")
        if cluster.nearest is not None and cluster.nearest in shown.clusters:
            nearest = cluster.nearest
            with st.container(width="content"):
                st.caption("Nearest cluster")
                if st.button(as_markdown(fit(shown.name(nearest), 50)), key="nearest"):
                    navigate("clusters", cluster=nearest)
    if cluster.rule:
        st.text(f"Rule: {cluster.rule.text}" + _fidelity(cluster.rule))
    left, right = st.columns([3, 2])
    with left:
        _profile(shown, cluster)
    with right:
        _shares(shown, "group", cluster, (*cluster.top_groups, *cluster.top_groups_by_lift))
        _shares(shown, "creator", cluster, (*cluster.top_creators, *cluster.top_creators_by_lift))
    _items(shown, cluster)


def _note(text: str) -> None:
    if text:
        st.caption(text)


def _fidelity(rule: Rule) -> str:
    if rule.precision is None or rule.recall is None:
        return ""
    return f"  (precision {rule.precision:.0%}, recall {rule.recall:.0%})"


def _profile(shown: OpenExport, cluster: Cluster) -> None:
    if cluster.top_terms:
        st.caption("Words that set the cluster apart")
        rows = [{"word": short(t.value), "rows": t.count, "weight": f"{t.weight:.3f}"} for t in cluster.top_terms]
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="words")
    if not cluster.features:
        return
    radar, numbers = st.tabs(["Radar", "Numbers"])
    with radar:
        st.plotly_chart(
            charts.radar(shown, [cluster.cluster]),
            key="one-radar",
            config=charts.STILL,
            alt="Mean z-scores around a circle",
        )
        _note(charts.left_out_features(shown, charts.MAX_SPOKES))
    with numbers:
        rows = [
            {
                "feature": feature_word(name),
                "mean": reading(name, p.mean),
                "median": reading(name, p.median),
                "deviation": reading(name, p.std),
                "z": f"{p.z:+.2f}",
            }
            for name, p in cluster.numbers.items()
        ]
        if rows:
            st.dataframe(pd.DataFrame(rows), hide_index=True, key="profile")
        _encoded(cluster)


def _encoded(cluster: Cluster) -> None:
    """The shares of categories, and the means of circular columns."""
    shares = [
        {
            "column": short(column.column, 60),
            "category": short(s.value, 60),
            "share": f"{s.fraction:.1%}",
            "× expected": round(s.lift, 2),
        }
        for column in cluster.categories
        for s in column.values
    ]
    if shares:
        st.dataframe(pd.DataFrame(shares), hide_index=True, key="categories")
    means = [
        {
            "column": short(c.column, 60),
            "mean": f"{c.mean:.4g} of {c.period:g}",
            "concentration": round(c.concentration, 2),
        }
        for c in cluster.circular
    ]
    if means:
        st.dataframe(pd.DataFrame(means), hide_index=True, key="circular")


def _shares(shown: OpenExport, role: str, cluster: Cluster, shares: Sequence[CategoryShare]) -> None:
    """The most frequent and the most over-represented values of a role: groups as bubbles and in a table, creators in a table."""
    # An export of 0.1.0 has no shares.
    merged = list({s.value: replace(s, fraction=s.fraction or s.count / max(cluster.size, 1)) for s in shares}.values())
    if not merged:
        return
    word = shown.word(role)
    st.caption(f"{plural(word).capitalize()}: the most frequent, and the most over-represented")
    if role == "group":
        color = shown.colors[cluster.cluster]
        alt = f"Share of each {word} in the cluster, and how many times the expected share that is"
        st.plotly_chart(charts.share_bubbles(merged, color), key="shares-chart", config=charts.STILL, alt=alt)
    rows = [
        {word: short(s.value, 60), "rows": s.count, "share": f"{s.fraction:.1%}", "× expected": round(s.lift, 2)}
        for s in merged
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key=f"shares-{role}")


def _items(shown: OpenExport, cluster: Cluster) -> None:
    st.header(plural(shown.item_word).capitalize(), anchor=False)
    picks = [pick for pick in PICKS if pick != "popular" or shown.has("popularity")]
    items_of = shown.library.cluster_items
    total = items_of(cluster.cluster, limit=0, distinct=True).total
    with st.container(horizontal=True, vertical_alignment="bottom"):
        pick = st.segmented_control(
            "Order", picks, required=True, format_func=PICKS.__getitem__, **address.choice("order", picks, picks[0])
        )
        seed = 0
        if pick == "random":
            seed = int(st.number_input("Seed", 0, 999_999, width=110, **address.number("seed", 0, 999_999, 0)))
        pages = max(1, -(-total // PAGE))
        page = int(st.number_input(f"Page of {pages:,}", 1, pages, width=130, **address.number("page", 1, pages, 1)))
    found = items_of(cluster.cluster, pick=pick, seed=seed, offset=(page - 1) * PAGE, limit=PAGE, distinct=True)
    item = choose(found.items, f"items-{cluster.cluster}-{pick}-{seed}-{page}", without=("cluster",))
    listen = " and to listen" if can_listen(found.items) else ""
    repeated = f" ({cluster.size:,} rows; the same title and creator is shown once)" if total < cluster.size else ""
    st.caption(
        f"{found.offset + 1:,} to {found.offset + len(found.items):,} of {total:,}{repeated}. Select a row for details{listen}."
    )
    if item is not None:
        item_card(shown, item, "in-cluster")
    representative = shown.library.at([shown.library.rank_of(e.id) for e in cluster.representatives])
    if representative:
        st.header("Representative", anchor=False)
        typical = choose(representative, f"representative-{cluster.cluster}", without=("cluster",))
        if typical is not None:
            item_card(shown, typical, "typical")
