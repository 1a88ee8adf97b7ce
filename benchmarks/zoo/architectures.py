"""What is exported: architectures of pytorchcv by `module.function` and input size, and the networks of `transformers.py`.

Opset, exporter and batch follow from the name, so that adding an architecture changes no other file.
"""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import NETWORKS

SCRIPT_OPSETS = (11, 13, 14, 16, 17, 18)
DYNAMO_OPSETS = (18, 20)

POOLS = ("features.final_pool", "features.final_block.pool", "output.final_pool", "output.avg_pool")

PYTORCHCV: dict[int, str] = {
    32: """nin_cifar.nin_cifar10 resnet_cifar.resnet20_cifar10 preresnet_cifar.preresnet20_cifar10
        resnext_cifar.resnext20_16x4d_cifar10 seresnet_cifar.seresnet20_cifar10 pyramidnet_cifar.pyramidnet110_a48_cifar10
        densenet_cifar.densenet40_k12_bc_cifar10 xdensenet_cifar.xdensenet40_2_k24_bc_cifar10 rir_cifar.rir_cifar10
        ror_cifar.ror3_56_cifar10 shakeshakeresnet_cifar.shakeshakeresnet20_2x16d_cifar10
        shakedropresnet_cifar.shakedropresnet20_cifar10 msdnet_cifar10.msdnet22_cifar10 wrn_cifar.wrn16_10_cifar10""",
    64: """resnet.resnet18 resnet.resnetbc14b resnet.resnet50 preresnet.preresnet18 preresnet.preresnetbc14b
        resnext.resnext14_32x4d resnext.resnext26_32x2d seresnet.seresnet18 sepreresnet.sepreresnet16
        seresnext.seresnext50_32x4d senet.senet16 ibnresnet.ibn_resnet50 ibnbresnet.ibnb_resnet50
        ibndensenet.ibn_densenet121 airnet.airnet50_1x64d_r16 airnext.airnext50_32x4d_r2 bamresnet.bam_resnet18
        cbamresnet.cbam_resnet18 resneta.resneta18 resnetd.resnetd50b resnesta.resnestabc14 sknet.sknet50
        diaresnet.diaresnet18 diapreresnet.diapreresnet16 regnet.regnetx004 regnet.regnety004 diracnetv2.diracnet18v2
        sharesnet.sharesnet18 octresnet.octresnet10_ad2 densenet.densenet121 condensenet.condensenet74_c4_g4
        sparsenet.sparsenet121 peleenet.peleenet drn.drnd22 dpn.dpn68 darknet.darknet_tiny darknet.darknet_ref
        darknet53.darknet53 bagnet.bagnet9 dla.dla34 dla.dla46c dla.dla60x hrnet.hrnet_w18_small_v1 vovnet.vovnet27s
        selecsls.selecsls42b hardnet.hardnet39ds hardnet.hardnet68 squeezenet.squeezenet_v1_0
        squeezenet.squeezeresnet_v1_1 squeezenext.sqnxt23_w1 shufflenet.shufflenet_g1_w1 shufflenet.shufflenet_g3_wd2
        shufflenetv2.shufflenetv2_wd2 shufflenetv2b.shufflenetv2b_wd2 menet.menet108_8x1_g3 mobilenet.mobilenet_wd2
        mobilenetb.mobilenetb_wd4 fdmobilenet.fdmobilenet_wd2 mobilenetv2.mobilenetv2_w1 mobilenetv2.mobilenetv2b_wd2
        mobilenetv3.mobilenetv3_small_w1 mobilenetv3.mobilenetv3_large_w1 igcv3.igcv3_w1 ghostnet.ghostnet
        mnasnet.mnasnet_a1 mnasnet.mnasnet_b1 darts.darts proxylessnas.proxylessnas_cpu fbnet.fbnet_cb spnasnet.spnasnet
        bninception.bninception efficientnet.efficientnet_b0 efficientnet.efficientnet_b0b
        efficientnetedge.efficientnet_edge_small_b mixnet.mixnet_s tresnet.tresnet_m channelnet.channelnet
        dicenet.dicenet_wd5 espnetv2.espnetv2_wd2 fishnet.fishnet99""",
    96: """xception.xception inceptionv3.inceptionv3 inceptionv4.inceptionv4 inceptionresnetv1.inceptionresnetv1
        pspnet.pspnet_resnetd50b_voc""",
    128: """fastscnn.fastscnn_cityscapes cgnet.cgnet_cityscapes dabnet.dabnet_cityscapes sinet.sinet_cityscapes
        bisenet.bisenet_resnet18_celebamaskhq fpenet.fpenet_cityscapes lednet.lednet_cityscapes
        edanet.edanet_cityscapes erfnet.erfnet_cityscapes linknet.linknet_cityscapes unet.unet_cityscapes
        esnet.esnet_cityscapes espcnet.espcnet_cityscapes contextnet.ctxnet_cityscapes sqnet.sqnet_cityscapes
        deeplabv3.deeplabv3_resnetd50b_voc simplepose_coco.simplepose_resnet18_coco
        simpleposemobile_coco.simplepose_mobile_mobilenetv2b_w1_coco
        lwopenpose_cmupan.lwopenpose2d_mobilenet_cmupan_coco centernet.centernet_resnet18_voc scnet.scnet50
        lffd.lffd20x5s320v2_widerface""",
}
"""Input size -> architectures."""


@dataclass(frozen=True)
class Architecture:
    """One file to export: `source` is `module.function` of pytorchcv, or empty for a network of `transformers.py`."""

    name: str
    source: str
    size: int
    dynamo: bool
    opset: int
    dynamic_batch: bool

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The module in evaluation mode, with random weights of a fixed seed, and example inputs."""
        torch.manual_seed(zlib.crc32(self.name.encode()))
        if not self.source:
            module, inputs = NETWORKS[self.name]()
        else:
            module, inputs = _pytorchcv(self.source, self.size), (torch.randn(1, 3, self.size, self.size),)
        if all(value.is_floating_point() for value in inputs):
            _settle_batch_norms(module, inputs)
        return module.eval(), inputs


def architectures() -> list[Architecture]:
    """All of them, transformer-type networks first."""
    named = [(name, "", 0) for name in NETWORKS]
    named += [(text.split(".")[1], text, size) for size, block in PYTORCHCV.items() for text in block.split()]
    found = []
    for name, source, size in named:
        draw = zlib.crc32(f"{name} export".encode())
        dynamo = draw % 4 == 0
        # fused attention cannot be exported below opset 14
        opsets = DYNAMO_OPSETS if dynamo else SCRIPT_OPSETS[0 if source else 2 :]
        found.append(Architecture(name, source, size, dynamo, opsets[draw // 4 % len(opsets)], draw // 64 % 3 == 0))
    return found


def _pytorchcv(source: str, size: int) -> nn.Module:
    """The network for a smaller image: its last pooling, made for 7 x 7 positions, covers what is left of them."""
    # one module at a time: importing all of pytorchcv needs torchvision
    home, function = source.split(".")
    make = getattr(importlib.import_module(f"pytorchcv.models.{home}"), function)
    # EfficientNets insist on the size they were made for, and then take any
    given = {} if home.startswith("efficientnet") else {"in_size": (size, size)}
    module: nn.Module = make(**given)
    for name, part in list(module.named_modules()):
        if name in POOLS and isinstance(part, nn.AvgPool2d):
            if not home.endswith(("_cifar", "_cifar10")):
                module.set_submodule(name, nn.AdaptiveAvgPool2d(1))
    return module


def _settle_batch_norms(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Running statistics of one random batch, then everything of a BatchNorm moved a little at random."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    module.train()
    with torch.no_grad():
        module(*(torch.randn(4, *value.shape[1:]) for value in inputs))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25)).add_(1e-3)
            norm.running_mean.add_(0.1 * torch.randn_like(norm.running_mean) * norm.running_var.sqrt())
            if norm.affine:
                norm.weight.mul_(torch.empty_like(norm.weight).uniform_(0.8, 1.25))
                norm.bias.add_(0.1 * torch.randn_like(norm.bias))
