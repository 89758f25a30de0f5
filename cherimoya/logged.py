"""The names of what a run records."""

PROFILE_METRICS = ("profile_mnll", "profile_pearson", "profile_spearman", "profile_jsd")
COUNT_METRICS = ("count_pearson", "count_spearman", "count_mse")
RANKING_METRICS = ("auroc", "auprc")
METRICS = PROFILE_METRICS + COUNT_METRICS + RANKING_METRICS
LOWER_IS_BETTER = ("loss", "profile_mnll", "profile_jsd", "count_mse")
