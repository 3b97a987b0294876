"""Cards of all clusters, and the page of one cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from gpuclust.model.records import NOISE, CategoryShare, Cluster, Example, Rule
from gpuclust.serve.explorer import charts
from gpuclust.serve.explorer.items import can_listen, choose, item_card, navigate, query_param
from gpuclust.serve.explorer.session import OpenExport, open_export
from gpuclust.serve.explorer.texts import as_markdown, figure, short, words
from gpuclust.serve.library import Pick

CARDS_IN_A_ROW = 3
MAX_CARDS = 60
PAGE = 10
PICKS: Mapping[str, Pick] = {"Most popular": "popular", "Nearest the centre": "central", "Random": "random"}


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
    tab_cards, tab_compare = st.tabs(["Cards", "Side by side"])
    with tab_cards:
        listed = list(shown.clusters.values())
        if len(listed) > MAX_CARDS:
            st.caption(f"The {MAX_CARDS} largest of {len(listed)} clusters.")
        for start in range(0, min(len(listed), MAX_CARDS), CARDS_IN_A_ROW):
            for column, cluster in zip(
                st.columns(CARDS_IN_A_ROW), listed[start : start + CARDS_IN_A_ROW], strict=False
            ):
                with column:
                    _card(shown, cluster)
    with tab_compare:
        _side_by_side(shown)


def _accents(shown: OpenExport) -> None:
    """Colour the edge of each card; only numbers and validated colours are inserted into the style."""
    rules = (f".st-key-{_key(c)} {{ border-left: 6px solid {color}; }}" for c, color in shown.colors.items())
    st.html(f"<style>{' '.join(rules)}</style>")


def _key(cluster: int) -> str:
    return "card-noise" if cluster == NOISE else f"card-{cluster}"


def _card(shown: OpenExport, cluster: Cluster) -> None:
    with st.container(border=True, key=_key(cluster.cluster)):
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
    """The three features with the largest z-scores, with their means."""
    by_z = sorted(cluster.features.items(), key=lambda pair: -abs(pair[1].z) if pair[1].z == pair[1].z else 0.0)
    return " · ".join(f"{words(name)} {figure(stats.mean)}" for name, stats in by_z[:3])


def _label(example: Example) -> str:
    title = short(example.title or example.id, 60)
    return f"{title} – {short(example.creator.replace(';', ', '), 40)}" if example.creator else title


def _side_by_side(shown: OpenExport) -> None:
    order = charts.listed_clusters(shown)
    chosen = st.multiselect(
        "Clusters",
        order,
        default=order[:3],
        format_func=lambda c: short(shown.name(c), 60),
        key="radar-clusters",
        max_selections=8,
    )
    if chosen:
        st.plotly_chart(
            charts.radar(shown, chosen),
            key="radar",
            config={"displayModeBar": False},
            alt="Mean z-scores around a circle",
        )
    st.plotly_chart(
        charts.profile_heatmap(shown, order),
        key="cluster-heat",
        config={"displayModeBar": False},
        alt="Mean z-scores by cluster",
    )
    rows = [
        {"cluster": short(shown.name(c)), "rows": shown.clusters[c].size}
        | {words(f): float(f"{p.mean:.4g}") for f, p in shown.clusters[c].features.items()}
        for c in shown.clusters
    ]
    st.caption("Means in original units")
    st.dataframe(pd.DataFrame(rows), hide_index=True, key="means")


def _one(shown: OpenExport, cluster: Cluster) -> None:
    if st.button("All clusters", icon=":material/arrow_back:", key="all-clusters"):
        navigate("clusters")
    st.title(as_markdown(shown.name(cluster.cluster)), anchor=False)
    if cluster.description:
        st.text(cluster.description)
    with st.container(horizontal=True):
        st.metric("Rows", f"{cluster.size:,}", border=True, width="content")
        st.metric("Share", f"{cluster.fraction:.1%}", border=True, width="content")
        if cluster.nearest is not None and cluster.nearest in shown.clusters:
            nearest = cluster.nearest
            with st.container(width="content"):
                st.caption("Nearest cluster")
                if st.button(as_markdown(shown.name(nearest), 50), key="nearest"):
                    navigate("clusters", cluster=nearest)
    if cluster.rule:
        st.text(f"Rule: {cluster.rule.text}" + _fidelity(cluster.rule))
    left, right = st.columns([3, 2])
    with left:
        _profile(shown, cluster)
    with right:
        _shares("Groups", cluster.top_groups, cluster.top_groups_by_lift)
        _shares("Creators", cluster.top_creators, cluster.top_creators_by_lift)
    _items(shown, cluster)


def _fidelity(rule: Rule) -> str:
    if rule.precision is None or rule.recall is None:
        return ""
    return f"  (precision {rule.precision:.0%}, recall {rule.recall:.0%})"


def _profile(shown: OpenExport, cluster: Cluster) -> None:
    radar, numbers = st.tabs(["Radar", "Numbers"])
    with radar:
        st.plotly_chart(
            charts.radar(shown, [cluster.cluster]),
            key="one-radar",
            config={"displayModeBar": False},
            alt="Mean z-scores around a circle",
        )
    with numbers:
        rows = [
            {
                "feature": words(name),
                "mean": figure(p.mean),
                "median": figure(p.median),
                "deviation": figure(p.std),
                "z": f"{p.z:+.2f}",
            }
            for name, p in cluster.features.items()
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True, key="profile")


def _shares(what: str, frequent: Sequence[CategoryShare], lifted: Sequence[CategoryShare]) -> None:
    if not frequent:
        return
    st.caption(f"{what}: most frequent, and most over-represented")
    merged = {s.value: s for s in (*frequent, *lifted)}
    rows = [
        {
            what.lower()[:-1]: short(s.value, 60),
            "rows": s.count,
            "times as frequent": round(s.lift, 2),
        }
        for s in merged.values()
    ]
    st.dataframe(pd.DataFrame(rows), hide_index=True, key=f"shares-{what}")


def _items(shown: OpenExport, cluster: Cluster) -> None:
    st.subheader("Items", anchor=False)
    picks = [label for label, pick in PICKS.items() if pick != "popular" or shown.has("popularity")]
    page_of = shown.library.cluster_items
    total = page_of(cluster.cluster, limit=0, distinct=True).total
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.segmented_control("Order", picks, default=picks[0], required=True, key="pick")
        seed = int(st.number_input("Seed", 0, 999_999, 0, key="seed", width=110)) if label == "Random" else 0
        pages = max(1, -(-total // PAGE))
        page = int(st.number_input("Page", 1, pages, 1, key=f"page-{cluster.cluster}-{label}-{seed}", width=110))
    found = page_of(cluster.cluster, pick=PICKS[label], seed=seed, offset=(page - 1) * PAGE, limit=PAGE, distinct=True)
    item = choose(found.items, f"items-{cluster.cluster}-{label}-{seed}-{page}", without=("cluster",))
    listen = " and to listen" if can_listen(found.items) else ""
    repeated = f" ({cluster.size:,} rows; the same title and creator is shown once)" if total < cluster.size else ""
    st.caption(
        f"{found.offset + 1:,} to {found.offset + len(found.items):,} of {total:,}{repeated}. Select a row for details{listen}."
    )
    if item is not None:
        item_card(shown, item, "in-cluster")
    representative = shown.library.at([shown.library.rank_of(e.id) for e in cluster.representatives])
    if representative:
        st.subheader("Representative", anchor=False)
        typical = choose(representative, f"representative-{cluster.cluster}", without=("cluster",))
        if typical is not None:
            item_card(shown, typical, "typical")
