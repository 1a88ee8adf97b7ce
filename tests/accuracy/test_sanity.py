from __future__ import annotations

import numpy as np
import pytest

from hwc_onnx.accuracy.reference import make_reference
from hwc_onnx.accuracy.sanity import LabelNumbering, LabelOrder, check_reference
from hwc_onnx.accuracy.types import Samples
from hwc_onnx.errors import DataError
from tests.accuracy.linear_model import CLASSES, classifier, labelled


def reference(labels: np.ndarray, images: np.ndarray, model=None):
    return make_reference(model or classifier(), Samples({"image": images}, labels), threads=1)


def test_check_reference_good_model_passes():
    images, labels = labelled(300)
    check_reference(reference(labels, images))


@pytest.mark.parametrize("step, words", [(1, "take 1 from the labels"), (-1, "add 1 to the labels")])
def test_check_reference_labels_counted_from_another_number(step, words):
    images, labels = labelled(600)
    kept = (labels + step >= 0) & (labels + step < CLASSES)
    with pytest.raises(LabelNumbering, match=words):
        check_reference(reference(labels[kept] + step, images[kept]))


@pytest.mark.parametrize("swapped", [{0: 1, 1: 0}, {3: 4, 4: 3}, {0: 4, 4: 0}])
def test_check_reference_swapped_classes_are_not_numbering(swapped):
    images, labels = labelled(600)
    kept = np.isin(labels, list(swapped))
    with pytest.raises(DataError) as refused:
        check_reference(reference(np.vectorize(swapped.get)(labels[kept]), images[kept]))
    assert not isinstance(refused.value, LabelNumbering)


def test_check_reference_classes_in_another_order_are_named():
    images, labels = labelled(600)
    order = np.array([0, 2, 3, 1, 4])  # the first and the last stay, so two fifths of the answers are right
    with pytest.raises(LabelOrder, match="label 1 is answered with class 2, label 2 is answered with class 3, label 3 is answered with class 1;"):
        check_reference(reference(np.argsort(order)[labels], images))


def test_check_reference_classes_that_share_an_answer_are_no_other_order():
    images, labels = labelled(600)
    merged = np.where(labels == 1, 0, labels)
    kept = labels != 0
    check_reference(reference(np.where(merged == 0, 1, merged)[kept], images[kept]))
    with pytest.raises(DataError) as refused:
        check_reference(reference(np.random.default_rng(0).permutation(labels), images))
    assert not isinstance(refused.value, LabelOrder)


def test_check_reference_one_answer_beside_a_frequent_class_is_not_numbering():
    images, _ = labelled(600)
    weight = np.full((64, CLASSES), -1, np.float32)
    weight[:, 1] = 1
    # always class 1, while most labels are 2: one less scores 80 %, and so do shuffled ones
    labels = np.where(np.random.default_rng(0).random(600) < 0.8, 2, 1)
    with pytest.raises(DataError) as refused:
        check_reference(reference(labels, np.abs(images), classifier(weight)))
    assert not isinstance(refused.value, LabelNumbering)


def test_check_reference_random_labels_are_at_chance():
    images, _ = labelled(300)
    labels = np.random.default_rng(4).integers(0, CLASSES, 300)
    with pytest.raises(DataError, match=r"guessing gives 20\.00%: it is at chance; check normalisation"):
        check_reference(reference(labels, images))


def test_check_reference_constant_answer_is_unrelated_to_labels():
    images, _ = labelled(300)
    weight = np.full((64, CLASSES), -1, np.float32)
    weight[:, 0] = 1
    labels = np.where(np.random.default_rng(0).random(300) < 0.9, 0, 1)
    # about 90% by always answering class 0: above a fifth, yet no better on the right labels than on shuffled ones
    with pytest.raises(DataError, match=r"8\d\.\d+%.*shuffled: its answers are unrelated"):
        check_reference(reference(labels, np.abs(images), classifier(weight)))


def test_check_reference_weak_but_real_model_passes():
    images, labels = labelled(600, right=0.4)
    check_reference(reference(labels, images))


def test_check_reference_without_labels_passes():
    images, _ = labelled(64)
    check_reference(make_reference(classifier(), Samples({"image": images}, None), threads=1))
