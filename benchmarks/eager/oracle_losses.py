"""The losses as people write them in eager PyTorch today, straight from their definitions.

Independent of gfl_ops. In float64 they are the truth that the tests measure from; in float32 they are the eager
result that a fused one is held against, in accuracy here and in time in the benchmarks. They index with masks and
wait for the device wherever that is the natural way to write it, and they make no attempt at extreme values.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def reduce(loss, weight, reduction, avg_factor):
    if weight is not None:
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if avg_factor is None:
        return loss.mean() if loss.numel() else loss.sum()
    if isinstance(avg_factor, torch.Tensor):
        avg_factor = avg_factor.squeeze()
    return loss.sum() / (avg_factor + torch.finfo(torch.float32).eps)


# ---- classification ------------------------------------------------------------------------------


def quality_focal_loss(pred, target, weight=None, beta=2.0, reduction="mean", avg_factor=None, activated=False):
    bce = F.binary_cross_entropy if activated else F.binary_cross_entropy_with_logits
    prob = pred if activated else pred.sigmoid()
    loss = bce(pred, torch.zeros_like(pred), reduction="none") * prob.pow(beta)
    if isinstance(target, tuple):
        label, score = target[0].long(), target[1]
        rows = ((label >= 0) & (label < pred.shape[1])).nonzero().squeeze(1)
        index = rows, label[rows]
        quality = score[rows]
    else:
        index = target.nonzero(as_tuple=True)
        quality = target[index]
    loss[index] = bce(pred[index], quality, reduction="none") * (quality - prob[index]).abs().pow(beta)
    return reduce(loss.sum(1), weight, reduction, avg_factor)


def _one_hot(label, classes, dtype):
    label = label.long()
    label = torch.where((label >= 0) & (label < classes), label, classes)
    return F.one_hot(label, classes + 1)[:, :-1].to(dtype)


def _of_elements(weight, loss):
    if weight is not None and weight.shape != loss.shape:
        weight = weight.view(-1, 1) if weight.numel() == loss.shape[0] else weight.view_as(loss)
    return weight


def sigmoid_focal_loss(pred, target, weight=None, gamma=2.0, alpha=0.25, reduction="mean", avg_factor=None):
    if not target.is_floating_point():
        target = _one_hot(target, pred.shape[1], pred.dtype)
    prob = pred.sigmoid()
    one_minus_pt = (1 - prob) * target + prob * (1 - target)
    focal_weight = (alpha * target + (1 - alpha) * (1 - target)) * one_minus_pt.pow(gamma)
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * focal_weight
    return reduce(loss, _of_elements(weight, loss), reduction, avg_factor)


def varifocal_loss(
    pred,
    target,
    weight=None,
    alpha=0.75,
    gamma=2.0,
    iou_weighted=True,
    detach_factor=False,
    reduction="mean",
    avg_factor=None,
):
    """Of dense targets as mmdet has it; of labels and scores as RT-DETR has it."""
    if isinstance(target, tuple):
        positive = _one_hot(target[0], pred.shape[1], pred.dtype)
        target = target[1].to(pred.dtype)[:, None] * positive
    else:
        target = target.to(pred.dtype)
        positive = (target > 0).to(pred.dtype)
    score = pred.detach().sigmoid() if detach_factor else pred.sigmoid()
    factor = (target if iou_weighted else 1.0) * positive + alpha * (score - target).abs().pow(gamma) * (1 - positive)
    loss = F.binary_cross_entropy_with_logits(pred, target, reduction="none") * factor
    return reduce(loss, _of_elements(weight, loss), reduction, avg_factor)


def soft_bce_loss(pred, target, weight=None, class_weight=None, reduction="mean", avg_factor=None):
    if isinstance(target, tuple):
        target = target[1].to(pred.dtype)[:, None] * _one_hot(target[0], pred.shape[1], pred.dtype)
    loss = F.binary_cross_entropy_with_logits(pred, target.to(pred.dtype), reduction="none")
    if class_weight is not None:
        loss = loss * class_weight
    return reduce(loss, _of_elements(weight, loss), reduction, avg_factor)


# ---- distributions over bins ---------------------------------------------------------------------


def distribution_focal_loss(
    pred,
    target,
    weight=None,
    reduction="mean",
    avg_factor=None,
    *,
    first_bin=0.0,
    bin_values=None,
    left_weight=None,
    right_weight=None,
):
    bins = pred.shape[-1]
    if bin_values is None:
        bin_values = torch.arange(bins, dtype=pred.dtype, device=pred.device) + first_bin
    # One row at a time over its bins: which one is the last at or below the target.
    left = (bin_values <= target.unsqueeze(-1)).sum(-1) - 1
    right = left + 1
    alone = right == bins
    right = torch.where(alone, left, right)
    if left_weight is None:
        gap = (bin_values[right] - bin_values[left]) + alone
        left_weight = torch.where(alone, 1.0, (bin_values[right] - target) / gap)
        right_weight = (target - bin_values[left]) / gap
    right_weight = torch.where(alone, 0.0, right_weight)
    flat = pred.reshape(-1, bins)
    left_loss = F.cross_entropy(flat, left.reshape(-1), reduction="none").reshape(target.shape)
    right_loss = F.cross_entropy(flat, right.reshape(-1), reduction="none").reshape(target.shape)
    return reduce(left_loss * left_weight + right_loss * right_weight, weight, reduction, avg_factor)


def distribution_kl_loss(
    student, teacher, temperature=1.0, weight=None, reduction="mean", avg_factor=None, *, bin_reduction="sum"
):
    soft = F.softmax(teacher.to(student.dtype) / temperature, dim=-1).detach()
    loss = F.kl_div(F.log_softmax(student / temperature, dim=-1), soft, reduction="none")
    loss = loss.mean(-1) if bin_reduction == "mean" else loss.sum(-1)
    return reduce(loss * temperature**2, weight, reduction, avg_factor)


def integral(pred, bin_values=None, num_bins=17, *, channel_dim=None):
    if bin_values is None:
        bin_values = torch.arange(num_bins, dtype=pred.dtype, device=pred.device)
    bins = len(bin_values)
    maps = channel_dim == 1 or (channel_dim is None and pred.dim() == 4 and pred.shape[1] == 4 * bins)
    if maps:
        pred = pred.permute(0, 2, 3, 1) if pred.dim() == 4 else pred.movedim(1, -1)
    prob = F.softmax(pred.reshape(-1, bins), dim=1)
    out = F.linear(prob, bin_values.to(pred.dtype).unsqueeze(0)).reshape(*pred.shape[:-1], 4)
    return out.movedim(-1, 1) if maps else out


def distribution_statistics(edge_logits, topk=4, *, channel_dim=None):
    """The head of GFLv2 has topk, which does not say which of equal probabilities comes first."""
    maps = channel_dim == 1 or (channel_dim is None and edge_logits.dim() == 4)
    if maps:
        edge_logits = edge_logits.movedim(1, -1)
    prob = F.softmax(edge_logits.unflatten(-1, (4, -1)), dim=-1)
    highest = prob.sort(dim=-1, descending=True, stable=True).values[..., :topk]
    out = torch.cat([highest, highest.mean(-1, keepdim=True)], -1).flatten(-2)
    return out.movedim(-1, 1) if maps else out


# ---- boxes ---------------------------------------------------------------------------------------


def _area(box):
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def _overlap(a, b):
    top_left = torch.max(a[..., :2], b[..., :2])
    bottom_right = torch.min(a[..., 2:], b[..., 2:])
    wh = (bottom_right - top_left).clamp(min=0)
    return wh[..., 0] * wh[..., 1]


def _at_least(x, eps):
    return torch.max(x, torch.tensor(eps, dtype=x.dtype, device=x.device))


def box_iou(a, b, *, aligned=False, eps=1e-6):
    if not aligned:
        a, b = a[:, None, :], b[None, :, :]
    overlap = _overlap(a, b)
    return overlap / _at_least(_area(a) + _area(b) - overlap, eps)


def iou_loss(
    pred,
    target,
    weight=None,
    kind="giou",
    eps=1e-7,
    reduction="mean",
    avg_factor=None,
    *,
    transform="linear",
    eps_rule="floor",
    alpha_rule="half",
):
    overlap = _overlap(pred, target)
    union = _area(pred) + _area(target) - overlap
    add = eps_rule == "add"
    enclose_wh = torch.max(pred[:, 2:], target[:, 2:]) - torch.min(pred[:, :2], target[:, :2])
    free = add and kind in ("diou", "ciou")
    enclose_w, enclose_h = (enclose_wh if free else enclose_wh.clamp(min=0)).unbind(-1)
    if kind == "iou":
        iou = (overlap / (union + eps if add else _at_least(union, 1e-6))).clamp(min=eps)
        loss = {"linear": 1 - iou, "square": 1 - iou**2, "log": -iou.log()}[transform]
    elif kind == "giou":
        enclosure = enclose_w * enclose_h
        if add:
            giou = overlap / (union + eps) - (enclosure - union) / (enclosure + eps)
        else:
            union, enclosure = _at_least(union, eps), _at_least(enclosure, eps)
            giou = overlap / union - (enclosure - union) / enclosure
        loss = 1 - giou
    else:
        iou = overlap / (union + eps)
        c2 = enclose_w**2 + enclose_h**2 + eps
        dx = (target[:, 0] + target[:, 2]) - (pred[:, 0] + pred[:, 2])
        dy = (target[:, 1] + target[:, 3]) - (pred[:, 1] + pred[:, 3])
        diou = iou - (dx**2 / 4 + dy**2 / 4) / c2
        if kind == "diou":
            loss = 1 - diou
        else:
            w1, h1 = pred[:, 2] - pred[:, 0], pred[:, 3] - pred[:, 1] + eps
            w2, h2 = target[:, 2] - target[:, 0], target[:, 3] - target[:, 1] + eps
            v = 4 / math.pi**2 * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
            alpha = (v / (1 - iou + v + (eps if add else 0.0))).detach()
            if alpha_rule == "half":
                alpha = (iou > 0.5) * alpha
            alpha = torch.where(v == 0, 0.0, alpha)  # 0 / 0 on identical boxes
            ciou = diou - alpha * v
            loss = 1 - (ciou if add else ciou.clamp(min=-1, max=1))
    if weight is not None and weight.dim() > 1:
        weight = weight.mean(-1)
    return reduce(loss, weight, reduction, avg_factor)


def giou_loss(pred, target, weight=None, eps=1e-7, reduction="mean", avg_factor=None, *, eps_rule="floor"):
    return iou_loss(pred, target, weight, "giou", eps, reduction, avg_factor, eps_rule=eps_rule)


def diou_loss(pred, target, weight=None, eps=1e-7, reduction="mean", avg_factor=None, *, eps_rule="floor"):
    return iou_loss(pred, target, weight, "diou", eps, reduction, avg_factor, eps_rule=eps_rule)


def ciou_loss(pred, target, weight=None, eps=1e-7, reduction="mean", avg_factor=None, **rules):
    return iou_loss(pred, target, weight, "ciou", eps, reduction, avg_factor, **rules)


# ---- the whole -----------------------------------------------------------------------------------


def generalized_focal_loss(
    p_left, p_right, y, y_left, y_right, beta=2.0, *, weight=None, reduction="none", avg_factor=None
):
    estimate = y_left * p_left + y_right * p_right
    cross_entropy = (y_right - y) * p_left.log().clamp(min=-100) + (y - y_left) * p_right.log().clamp(min=-100)
    return reduce((y - estimate).abs().pow(beta) * -cross_entropy, weight, reduction, avg_factor)


def distribution_box_loss(
    edge_logits,
    anchor_points,
    target_boxes,
    weight=None,
    *,
    stride=1.0,
    iou_kind="giou",
    eps=1e-6,
    target_margin=0.1,
    reduction="mean",
    avg_factor=None,
    **rules,
):
    """The lines that a GFL head runs on the positives of one level."""
    if not isinstance(stride, torch.Tensor):
        stride = torch.tensor(float(stride), dtype=edge_logits.dtype, device=edge_logits.device)
    stride = stride.reshape(-1, 1).to(edge_logits.dtype)
    rows = edge_logits.shape[0]
    logits = edge_logits.flatten(1)
    bins = logits.shape[1] // 4
    points, target = anchor_points / stride, target_boxes / stride
    target_edges = torch.cat([points - target[:, :2], target[:, 2:] - points], 1)
    target_edges = target_edges.clamp(min=0).clamp(max=bins - 1 - target_margin)
    dfl = distribution_focal_loss(logits.reshape(-1, bins), target_edges.reshape(-1), reduction="none")
    dfl = dfl.reshape(rows, 4).mean(1)
    left, top, right, bottom = integral(logits, num_bins=bins).unbind(1)
    x, y = points.unbind(1)
    boxes = torch.stack([x - left, y - top, x + right, y + bottom], 1)
    iou = iou_loss(boxes, target, kind=iou_kind, eps=eps, reduction="none", **rules)
    return (
        reduce(iou, weight, reduction, avg_factor),
        reduce(dfl, weight, reduction, avg_factor),
        (boxes * stride).detach(),
        box_iou(boxes.detach(), target, aligned=True),
    )


def decode_boxes(edge_logits, anchor_points, stride, max_shape=None):
    """Rows and maps alike with the channels last, and back."""
    is_map = edge_logits.dim() == 4
    logits = edge_logits.permute(0, 2, 3, 1) if is_map else edge_logits
    distance = integral(logits, num_bins=logits.shape[-1] // 4, channel_dim=-1)
    if is_map:
        anchor_points = anchor_points.reshape(*logits.shape[1:3], 2)
    if isinstance(stride, torch.Tensor):
        stride = stride[..., None]
    distance = distance * stride
    boxes = torch.cat([anchor_points - distance[..., :2], anchor_points + distance[..., 2:]], -1)
    if max_shape is not None:
        height, width = torch.as_tensor(max_shape).to(boxes).unbind(-1)
        most = torch.stack([width, height, width, height], -1)
        boxes = boxes.clamp(min=0).minimum(most[:, None, None] if most.dim() > 1 else most)
    return boxes.permute(0, 3, 1, 2) if is_map else boxes
