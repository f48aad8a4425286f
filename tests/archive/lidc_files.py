"""Small LIDC annotation files for tests, and where the real ones are."""

from collections.abc import Sequence

Points = Sequence[tuple[int, int]]

SQUARE = ((2, 2), (6, 2), (6, 6), (2, 6), (2, 2))  # encloses 3 x 3 pixels


def roi(points: Points, z: float = 0.0, uid: str = "", inclusion: str = "TRUE") -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return (
        f"<roi><imageZposition>{z} </imageZposition><imageSOP_UID>{uid or f'1.2.{z:g}'}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def nodule(name: str, *rois: str, malignancy: str | None = "3") -> str:
    rating = "" if malignancy is None else f"<malignancy>{malignancy}</malignancy>"
    traits = f"<characteristics><subtlety>5</subtlety>{rating}</characteristics>"
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{traits}{''.join(rois)}</unblindedReadNodule>"


def point_mark(name: str, x: int = 9, y: int = 9) -> str:
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{roi([(x, y)])}</unblindedReadNodule>"


def session(*nodules: str) -> str:
    return (
        f"<readingSession><servicingRadiologistID>anon</servicingRadiologistID>{''.join(nodules)}"
        "<nonNodule><nonNoduleID>7</nonNoduleID><imageZposition>0</imageZposition></nonNodule>"
        "</readingSession>"
    )


def message(*sessions: str, prolog: str = "", root: str = "LidcReadMessage", series: str = "1.2.3") -> str:
    header = (
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid><StudyInstanceUID>1.2</StudyInstanceUID>"
        if series
        else ""
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog}<{root} uid="1" xmlns="http://www.nih.gov">'
        f"<ResponseHeader>{header}</ResponseHeader>{''.join(sessions)}</{root}>"
    )
