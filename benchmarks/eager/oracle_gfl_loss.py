"""The whole GFL loss as detectors run it in eager PyTorch today: assignment image by image, losses level by level.

Independent of gfl_ops, like oracle_losses.py. It makes the (anchors, gts) matrices, indexes with masks and waits for
the device wherever that is the natural way to write it.
"""

from __future__ import annotations

import math

import torch

from benchmarks.eager import oracle_losses


def gfl_loss(
    cls_scores,
    bbox_preds,
    targets,
    valid_shapes=None,
    *,
    strides,
    beta=2.0,
    loss_weights=(1.0, 2.0, 0.25),
    topk=9,
    iou_kind="giou",
    eps_rule="floor",
    alpha_rule="half",
    anchor_scale=8.0,
    center_offset=0.0,
    mean_over_ranks=lambda x: x,
    settle=None,
):
    """targets: a list of {"boxes", "labels"}; valid_shapes: (B, 2); settle: see assign. Returns three losses, each the
    sum over the levels."""
    classes = cls_scores[0].shape[1]
    like = bbox_preds[0]
    grid = [
        anchors_of_level(x.shape[2:], stride, anchor_scale, center_offset, like)
        for x, stride in zip(cls_scores, strides, strict=True)
    ]
    sizes = [len(anchors) for anchors in grid]
    labels, weights, boxes, num_pos = [], [], [], 0
    for image, target in enumerate(targets):
        valid = valid_cells(cls_scores, strides, None if valid_shapes is None else valid_shapes[image])
        assigned = assign(grid, valid, target["boxes"], topk, settle)
        positive = assigned >= 0
        label = torch.full_like(assigned, classes)
        label[positive] = target["labels"][assigned[positive]].long()
        box = torch.zeros(len(assigned), 4, dtype=like.dtype, device=like.device)
        box[positive] = target["boxes"][assigned[positive]].to(like.dtype)
        labels.append(label.split(sizes))
        weights.append(torch.cat(valid).to(like.dtype).split(sizes))
        boxes.append(box.split(sizes))
        num_pos += max(int(positive.sum()), 1)

    avg_factor = mean_over_ranks(torch.tensor(float(num_pos))).item()
    losses = []
    for level, stride in enumerate(strides):
        losses.append(
            loss_of_level(
                grid[level],
                cls_scores[level],
                bbox_preds[level],
                torch.cat([image[level] for image in labels]),
                torch.cat([image[level] for image in weights]),
                torch.cat([image[level] for image in boxes]),
                stride,
                avg_factor,
                beta,
                {"kind": iou_kind, "eps": 1e-6, "eps_rule": eps_rule, "alpha_rule": alpha_rule},
            )
        )
    loss_cls, loss_bbox, loss_dfl, weight_sums = (sum(x) for x in zip(*losses, strict=True))
    divisor = mean_over_ranks(weight_sums).clamp(min=1).item()
    parts = (loss_cls, loss_bbox / divisor, loss_dfl / divisor)
    return tuple(weight * loss for weight, loss in zip(loss_weights, parts, strict=True))


def loss_of_level(anchors, cls_score, bbox_pred, labels, weights, boxes, stride, avg_factor, beta, iou_options):
    classes, channels = cls_score.shape[1], bbox_pred.shape[1]
    batch, bins = len(cls_score), channels // 4
    cls_score = cls_score.permute(0, 2, 3, 1).reshape(-1, classes)
    bbox_pred = bbox_pred.permute(0, 2, 3, 1).reshape(-1, channels)
    points = ((anchors[:, :2] + anchors[:, 2:]) / 2).repeat(batch, 1)
    positive = ((labels >= 0) & (labels < classes)).nonzero().squeeze(1)
    score = torch.zeros(len(labels), dtype=weights.dtype, device=weights.device)
    if len(positive):
        weight = cls_score.detach().sigmoid().max(1)[0][positive]
        logits, target, point = bbox_pred[positive], boxes[positive] / stride, points[positive] / stride
        x, y = point.unbind(1)
        left, top, right, bottom = oracle_losses.integral(logits, num_bins=bins).unbind(1)
        decoded = torch.stack([x - left, y - top, x + right, y + bottom], 1)
        score[positive] = oracle_losses.box_iou(decoded.detach(), target, aligned=True)
        loss_bbox = oracle_losses.iou_loss(decoded, target, weight, avg_factor=1.0, **iou_options)
        edges = torch.cat([point - target[:, :2], target[:, 2:] - point], 1).clamp(min=0, max=bins - 1 - 0.1)
        loss_dfl = oracle_losses.distribution_focal_loss(
            logits.reshape(-1, bins),
            edges.reshape(-1),
            weight[:, None].expand(-1, 4).reshape(-1),
            avg_factor=4.0,
        )
    else:
        loss_bbox = loss_dfl = bbox_pred.sum() * 0
        weight = bbox_pred.new_zeros(1)
    loss_cls = oracle_losses.quality_focal_loss(cls_score, (labels, score), weights, beta, avg_factor=avg_factor)
    return loss_cls, loss_bbox, loss_dfl, weight.sum()


def anchors_of_level(shape, stride, scale, offset, like):
    """(H * W, 4) squares around the cells' centres."""
    height, width = shape
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + offset) * stride
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + offset) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    x, y, half = x.reshape(-1), y.reshape(-1), scale * stride / 2
    return torch.stack([x - half, y - half, x + half, y + half], 1)


def valid_cells(maps, strides, shape):
    """For each level, (H * W,) of bool: the cells that begin inside the valid part of the image."""
    flags = []
    for x, stride in zip(maps, strides, strict=True):
        height, width = x.shape[2:]
        flag = torch.zeros(height, width, dtype=torch.bool, device=x.device)
        rows = height if shape is None else min(height, math.ceil(float(shape[0]) / stride))
        columns = width if shape is None else min(width, math.ceil(float(shape[1]) / stride))
        flag[:rows, :columns] = True
        flags.append(flag.reshape(-1))
    return flags


def assign(grid, valid, gt_boxes, topk, settle=None):
    """(A,) the gt of each anchor, -1 for none: ATSS on the valid anchors of all levels. `settle` says how the gts share
    out their candidates."""
    anchors = torch.cat([level[inside] for level, inside in zip(grid, valid, strict=True)])
    counts = [int(inside.sum()) for inside in valid]
    inside = torch.cat(valid)
    assigned = torch.full((len(inside),), -1, device=inside.device)
    gts = len(gt_boxes)
    if gts == 0 or len(anchors) == 0:
        return assigned
    gt_boxes = gt_boxes.to(anchors.dtype)
    overlaps = oracle_losses.box_iou(anchors, gt_boxes)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    distances = (centers[:, None, :] - gt_centers[None, :, :]).pow(2).sum(-1).sqrt()
    candidates, start = [], 0
    for count in counts:
        nearest = distances[start : start + count].topk(min(topk, count), dim=0, largest=False)[1]
        candidates.append(nearest + start)
        start += count
    candidates = torch.cat(candidates)
    of_candidates = overlaps[candidates, torch.arange(gts, device=inside.device)]
    threshold = of_candidates.mean(0) + of_candidates.std(0)
    best, gt = (settle or settled)(overlaps, centers, gt_boxes, candidates, of_candidates >= threshold)
    assigned[inside] = torch.where(best > -torch.inf, gt, -1)
    return assigned


def settled(overlaps, centers, gt_boxes, candidates, worthy):
    """Of each anchor the highest IoU with a gt that it is a worthy candidate of and lies in, and that gt."""
    columns = torch.arange(len(gt_boxes), device=gt_boxes.device).expand_as(candidates)
    positive = worthy & (sides_within(centers[candidates], gt_boxes).min(-1)[0] > 0.01)
    claimed = torch.full_like(overlaps, -torch.inf)
    row, column = candidates[positive], columns[positive]
    claimed[row, column] = overlaps[row, column]
    return claimed.max(1)


def sides_within(points, gt_boxes):
    """(candidates, gts, 4) of points (candidates, gts, 2): how far each lies from the sides of its gt."""
    x, y = points.unbind(-1)
    return torch.stack([x - gt_boxes[:, 0], y - gt_boxes[:, 1], gt_boxes[:, 2] - x, gt_boxes[:, 3] - y], -1)
