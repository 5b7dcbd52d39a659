"""How trees of the tests are grown, where a test does not say otherwise."""

from rank.trees import Hyperparameters

PARAMETERS = Hyperparameters(
    learning_rate=0.1,
    num_leaves=7,
    min_rows_per_leaf=20,
    min_positives_per_leaf=1.0,
    max_rounds=60,
    early_stopping_rounds=10,
    seed=1,
    threads=1,
    l2=0.0,
    feature_fraction=0.7,
    bagging_fraction=0.8,
    rankers=1,
)
