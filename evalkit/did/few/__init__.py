"""Inference with few clusters, and with one or a few treated units: what a municipal pilot is."""

from evalkit.did.few.clusters import ClusterVerdict, effective_clusters, few_clusters
from evalkit.did.few.conley_taber import conley_taber, ferman_pinto
from evalkit.did.few.randomisation import randomisation
from evalkit.did.few.result import Tested
from evalkit.did.few.wild import wild_cluster, wild_influence, wild_two_way

__all__ = [
    "ClusterVerdict",
    "Tested",
    "conley_taber",
    "effective_clusters",
    "ferman_pinto",
    "few_clusters",
    "randomisation",
    "wild_cluster",
    "wild_influence",
    "wild_two_way",
]
