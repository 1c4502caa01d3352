"""What the papers report for their own methods, to stand beside measured figures; all their tables are in docs/."""

from typing import NamedTuple


class PaperFigure(NamedTuple):
    """One row of a paper's table, in per cent.

    Attributes:
        method: the script that implements it, without .py.
        name: what the row is of.
        dataset: the target.
        rank1: CMC at rank 1.
        mAP: mean average precision.
        source: paper and table.
    """

    method: str
    name: str
    dataset: str
    rank1: float
    mAP: float
    source: str


_HCT = "Zeng et al., CVPR 2020, Table 1"
_BUC = "Lin et al., AAAI 2019, Table 1, as corrected by its authors"
_BUC_VIDEO = "Lin et al., AAAI 2019, Table 2, as corrected by its authors"
_SSL, _SSL_VIDEO = "Lin et al., CVPR 2020, Table 1", "Lin et al., CVPR 2020, Table 2"
_SSL_TERMS = "Lin et al., CVPR 2020, Table 3"
_PUL, _PUL_LABELS = "Fan et al., 2017, Table II", "Fan et al., 2017, Table IV"
_HCD_ADAPTIVE, _HCD = "Zheng et al., ICCV 2021, Table 1", "Zheng et al., ICCV 2021, Table 2"
_MARKET, _DUKE, _MSMT = "Market-1501", "DukeMTMC-reID", "MSMT17"
_DUKE_VIDEO = "DukeMTMC-VideoReID"

PAPER_FIGURES = (
    PaperFigure("hct", "HCT", _MARKET, 80.0, 56.4, _HCT),
    PaperFigure("hct", "HCT", _DUKE, 69.6, 50.7, _HCT),
    PaperFigure("buc", "BUC", _MARKET, 61.9, 29.6, _BUC),
    PaperFigure("buc", "BUC", _DUKE, 40.4, 22.1, _BUC),
    PaperFigure("buc", "BUC", "MARS", 55.1, 29.4, _BUC_VIDEO),
    PaperFigure("buc", "BUC", _DUKE_VIDEO, 74.8, 66.7, _BUC_VIDEO),
    PaperFigure("buc", "BUC without its diversity term", _MARKET, 54.5, 24.1, _BUC),
    PaperFigure("buc", "BUC without its diversity term", _DUKE, 38.8, 20.6, _BUC),
    PaperFigure("buc", "BUC with SSL's two terms", _MARKET, 69.5, 36.2, _SSL_TERMS),
    PaperFigure("buc", "BUC with SSL's two terms", _DUKE, 51.5, 25.1, _SSL_TERMS),
    PaperFigure("softened", "SSL", _MARKET, 71.7, 37.8, _SSL),
    PaperFigure("softened", "SSL", _DUKE, 52.5, 28.6, _SSL),
    PaperFigure("softened", "SSL", "MARS", 62.8, 43.6, _SSL_VIDEO),
    PaperFigure("softened", "SSL", _DUKE_VIDEO, 76.4, 69.3, _SSL_VIDEO),
    PaperFigure("pul", "PUL from DukeMTMC-reID", _MARKET, 44.7, 20.1, _PUL),
    PaperFigure("pul", "PUL from Market-1501", _DUKE, 30.4, 16.4, _PUL),
    PaperFigure("pul", "PUL from two sources, with 50 labelled identities", _MARKET, 50.9, 24.8, _PUL_LABELS),
    PaperFigure("pul", "PUL from two sources, with 50 labelled identities", _DUKE, 36.5, 21.5, _PUL_LABELS),
    PaperFigure("cluster_dynamics", "HCD, unsupervised", _MARKET, 91.1, 78.1, _HCD),
    PaperFigure("cluster_dynamics", "HCD, unsupervised", _DUKE, 79.8, 65.6, _HCD),
    PaperFigure("cluster_dynamics", "HCD, unsupervised", _MSMT, 53.7, 26.9, _HCD),
    PaperFigure("cluster_dynamics", "HCD from DukeMTMC-reID", _MARKET, 91.5, 80.0, _HCD_ADAPTIVE),
    PaperFigure("cluster_dynamics", "HCD from Market-1501", _DUKE, 82.2, 70.1, _HCD_ADAPTIVE),
    PaperFigure("cluster_dynamics", "HCD from DukeMTMC-reID", _MSMT, 56.1, 29.3, _HCD_ADAPTIVE),
    PaperFigure("cluster_dynamics", "HCD from Market-1501", _MSMT, 54.9, 28.4, _HCD_ADAPTIVE),
    PaperFigure("dbscan", "SpCL, as HCD's paper quotes it", _MARKET, 88.1, 73.1, _HCD),
    PaperFigure("dbscan", "SpCL, as HCD's paper quotes it", _MSMT, 42.3, 19.1, _HCD),
    PaperFigure("supervised triplet", "batch-hard triplet with labels", _MARKET, 91.6, 78.2, _HCT),
    PaperFigure("supervised triplet", "batch-hard triplet with labels", _DUKE, 80.8, 65.4, _HCT),
)
DIRECT_TRANSFER = (
    PaperFigure("", "ImageNet weights, no training", _MARKET, 11.1, 3.5, _HCT),
    PaperFigure("", "ImageNet weights, no training", _DUKE, 8.6, 3.0, _HCT),
)


def figures_of(methods: set[str]) -> list[PaperFigure]:
    """Returns the papers' rows of some methods, direct transfer first where there are any."""
    figures = [figure for figure in PAPER_FIGURES if figure.method in methods]
    return [*DIRECT_TRANSFER, *figures] if figures else []
