import numpy as np

from benchmarks.score import addition, generated, grown


def test_the_limit_adds_what_predict_adds() -> None:
    model = grown(7, 8, generated(600, 4, 0.3, seed=0), seed=0)
    features = generated(9000, 4, 0.3, seed=1).features
    right = model.booster.predict(features.to_numpy(), raw_score=True)
    np.testing.assert_array_equal(addition(model, features)(), right)
