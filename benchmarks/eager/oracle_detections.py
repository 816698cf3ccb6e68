"""Post-processing as detectors do it in eager PyTorch today, and NMS as a plain loop; independent of gfl_ops."""

from __future__ import annotations

import torch


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def nms(boxes, scores, threshold, idxs=None):
    """Greedy, box by box, in Python's floats."""
    idxs = [0] * len(boxes) if idxs is None else idxs.tolist()
    rows, keep = boxes.tolist(), []
    for i in sorted(range(len(rows)), key=lambda i: (-float(scores[i]), i)):
        if not any(idxs[i] == idxs[j] and iou(rows[i], rows[j]) > threshold for j in keep):
            keep.append(i)
    return torch.tensor(keep, dtype=torch.int64)


def postprocess(
    cls_scores,
    bbox_preds,
    strides,
    image_shapes,
    scale_factors=None,
    *,
    score_thr=0.05,
    nms_pre=1000,
    iou_thr=0.6,
    max_per_img=100,
    min_size=0,
    batched_nms=None,
    sigmoid=torch.sigmoid,
):
    """A list of (boxes, scores, labels), one an image; every step a few whole-tensor ops over every cell."""
    results = []
    for image, (height, width) in enumerate(image_shapes):
        all_boxes, all_scores, all_labels = [], [], []
        for cls_score, bbox_pred, stride in zip(cls_scores, bbox_preds, strides, strict=True):
            num_classes, rows, cols = cls_score.shape[1:]
            bins = bbox_pred.shape[1] // 4
            logits = bbox_pred[image].permute(1, 2, 0).reshape(-1, bins)
            project = torch.arange(bins, dtype=logits.dtype, device=logits.device)
            distance = (logits.softmax(1) @ project).reshape(-1, 4) * stride
            scores = sigmoid(cls_score[image].permute(1, 2, 0).reshape(-1, num_classes))
            valid = scores > score_thr
            index = valid.nonzero()
            scores, order = scores[valid].sort(descending=True, stable=True)
            index = index[order[:nms_pre]]
            location, labels = index[:, 0], index[:, 1]
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
            points = (torch.stack([x, y], -1).reshape(-1, 2).to(distance) * stride)[location]
            distance = distance[location]
            boxes = torch.cat([points - distance[:, :2], points + distance[:, 2:]], 1)
            boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
            boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
            all_boxes.append(boxes)
            all_scores.append(scores[:nms_pre])
            all_labels.append(labels)
        boxes, scores, labels = torch.cat(all_boxes), torch.cat(all_scores), torch.cat(all_labels)
        if scale_factors is not None:
            boxes = boxes / boxes.new_tensor(scale_factors[image]).repeat(2)
        size = boxes[:, 2:] - boxes[:, :2]
        large = (size > min_size).all(1)
        boxes, scores, labels = boxes[large], scores[large], labels[large]
        keep = (batched_nms or nms_of_classes)(boxes, scores, labels, iou_thr)[:max_per_img]
        results.append((boxes[keep], scores[keep], labels[keep]))
    return results


def nms_of_classes(boxes, scores, labels, threshold):
    return nms(boxes, scores, threshold, labels)


def sigmoid_that_ties(logits):
    """Equal logits have equal scores; torch's own may differ in the last bit by where in memory a logit stands."""
    values, place = logits.unique(return_inverse=True)
    return values.double().sigmoid().to(logits.dtype)[place]
