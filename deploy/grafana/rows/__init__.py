"""The dashboard's rows, from top to bottom."""

from deploy.grafana.rows.cluster import engines, nodes
from deploy.grafana.rows.learning import learning, weights
from deploy.grafana.rows.pools import pools, staleness_and_sync
from deploy.grafana.rows.speed import now, throughput, time_of_a_step

ROWS = {
    "Now": now, "Throughput": throughput, "Where a step's time goes": time_of_a_step, "Pools": pools,
    "Staleness and weight sync": staleness_and_sync, "Learning": learning, "Weights": weights,
    "Engines, by vLLM": engines, "Nodes, by Ray": nodes,
}  # fmt: skip
