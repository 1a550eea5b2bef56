"""The published archives of the data sets: address, size, checksum and content.

MD5 sums of VOC, COCO, MNIST, EMNIST and CIFAR-100 are those that torchvision and the COCO community publish; Penn-Fudan
publishes none, so its archive is judged by its size, by the check sums inside the zip and by what it must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_VOC: Final = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO: Final = "http://images.cocodataset.org"
_SVHN: Final = "http://ufldl.stanford.edu/housenumbers"
_MNIST: Final = "https://ossci-datasets.s3.amazonaws.com/mnist"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """size: bytes; md5: of the file, None if nobody publishes one; unpacked: bytes on disk, roughly.

    into: folder below `data.root` that it is unpacked in. folder: what a user looks for, below `data.root`.
    last: path below `data.root` that is put in place after everything else, so that its presence means all is there.
    holds: patterns below `data.root`, and how many files of each there are at least.
    plain: the file itself is what is wanted, as it is; there is nothing to unpack.
    """

    url: str
    size: int
    md5: str | None
    unpacked: int
    into: str = "."
    folder: str
    last: str
    holds: tuple[tuple[str, int], ...]
    plain: bool = False

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]

    def present(self, root: Path) -> bool:
        """Return True if what the archive holds lies below `root`, all of it."""
        # A plain file may have been unpacked by hand: `holds` knows it by either name.
        return (self.plain or (root / self.last).exists()) and not self.lacking(root)

    def lacking(self, root: Path) -> list[str]:
        """Describe the files that should lie below `root` and do not."""
        found = {pattern: sum(1 for _ in root.glob(pattern)) for pattern, _ in self.holds}
        return [f"{found[p]} of {count} files {p}" for p, count in self.holds if found[p] < count]


def _voc(year: str, split: str, images: int, *, file: str, size: int, md5: str) -> Archive:
    folder = f"VOCdevkit/VOC{year}"
    return Archive(
        url=f"{_VOC}/voc{year}/{file}",
        size=size,
        md5=md5,
        unpacked=size,
        folder=folder,
        last=f"{folder}/ImageSets/Main/{split}.txt",
        holds=((f"{folder}/JPEGImages/*.jpg", images), (f"{folder}/Annotations/*.xml", images)),
    )


def _coco_images(split: str, images: int, *, size: int, md5: str) -> Archive:
    return Archive(
        url=f"{_COCO}/zips/{split}.zip",
        size=size,
        md5=md5,
        unpacked=size,
        into="coco",
        folder=f"coco/{split}",
        last=f"coco/{split}",
        holds=((f"coco/{split}/*.jpg", images),),
    )


def _mnist(name: str, *, size: int, md5: str) -> Archive:
    file = f"MNIST/raw/{name}.gz"
    return Archive(
        url=f"{_MNIST}/{name}.gz",
        size=size,
        md5=md5,
        unpacked=size,
        into="MNIST/raw",
        folder="MNIST/raw",
        last=file,
        holds=((f"MNIST/raw/{name}*", 1),),
        plain=True,
    )


def _svhn(split: str, images: int, *, size: int, unpacked: int) -> Archive:
    folder = f"svhn/{split}"
    return Archive(
        url=f"{_SVHN}/{split}.tar.gz",
        size=size,
        md5=None,
        unpacked=unpacked,
        into="svhn",
        folder=folder,
        last=f"{folder}/digitStruct.mat",
        holds=((f"{folder}/*.png", images),),
    )


ARCHIVES: dict[str, Archive] = {
    "voc2007-trainval": _voc(
        "2007",
        "trainval",
        5011,
        file="VOCtrainval_06-Nov-2007.tar",
        size=460_032_000,
        md5="c52e279531787c972589f7e41ab4ae64",
    ),
    "voc2007-test": _voc(
        "2007",
        "test",
        4952,
        file="VOCtest_06-Nov-2007.tar",
        size=451_020_800,
        md5="b6e924de25625d8de591ea690078ad9f",
    ),
    "voc2012-trainval": _voc(
        "2012",
        "trainval",
        11540,
        file="VOCtrainval_11-May-2012.tar",
        size=1_999_639_040,
        md5="6cd6e144f989b92b3379bac3b3de84fd",
    ),
    "coco-train2017": _coco_images("train2017", 118287, size=19_336_861_798, md5="cced6f7f71b7629ddf16f17bbcfab6b2"),
    "coco-val2017": _coco_images("val2017", 5000, size=815_585_330, md5="442b8da7639aecaf257c1dceb8ba8c80"),
    "coco-annotations2017": Archive(
        url=f"{_COCO}/annotations/annotations_trainval2017.zip",
        size=252_907_541,
        md5="f4bbac642086de4f52a3fdda2de5fa2c",
        unpacked=830_000_000,
        into="coco",
        folder="coco/annotations",
        last="coco/annotations/instances_val2017.json",
        holds=(("coco/annotations/instances_*2017.json", 2),),
    ),
    "pennfudan": Archive(
        url="https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip",
        size=53_723_336,
        md5=None,
        unpacked=56_000_000,
        folder="PennFudanPed",
        last="PennFudanPed",
        holds=(
            ("PennFudanPed/PNGImages/*.png", 170),
            ("PennFudanPed/PedMasks/*.png", 170),
            ("PennFudanPed/Annotation/*.txt", 170),
        ),
    ),
    "mnist-train-images": _mnist("train-images-idx3-ubyte", size=9_912_422, md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "mnist-train-labels": _mnist("train-labels-idx1-ubyte", size=28_881, md5="d53e105ee54ea40749a09fcbcd1e9432"),
    "mnist-test-images": _mnist("t10k-images-idx3-ubyte", size=1_648_877, md5="9fb629c4189551a2d022fa330f9573f3"),
    "mnist-test-labels": _mnist("t10k-labels-idx1-ubyte", size=4_542, md5="ec29112dd5afa0611ce80d1b7f02629c"),
    "emnist": Archive(
        url="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        size=561_753_746,
        md5="58c8d27c78d21e728a6bc7b3cc06412e",
        unpacked=562_000_000,
        into="EMNIST/raw",
        folder="EMNIST/raw/gzip",
        last="EMNIST/raw/gzip",
        holds=(("EMNIST/raw/gzip/emnist-*-ubyte.gz", 24),),
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        size=169_001_437,
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        unpacked=187_000_000,
        folder="cifar-100-python",
        last="cifar-100-python",
        holds=tuple((f"cifar-100-python/{name}", 1) for name in ("train", "test", "meta")),
    ),
    "svhn-train": _svhn("train", 33_402, size=404_141_560, unpacked=430_000_000),
    "svhn-test": _svhn("test", 13_068, size=276_555_967, unpacked=300_000_000),
    "svhn-extra": _svhn("extra", 202_353, size=1_955_489_752, unpacked=2_200_000_000),
    "cub-200-2011": Archive(
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        size=1_150_585_339,
        md5="97eceeb196236b17998738112f37df78",
        unpacked=1_200_000_000,
        folder="CUB_200_2011",
        last="CUB_200_2011/images.txt",
        holds=(("CUB_200_2011/images/*/*.jpg", 11_788),),
    ),
}
