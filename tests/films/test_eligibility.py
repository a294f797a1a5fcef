from __future__ import annotations

import dicoms
import pytest
from dicoms import CR, DX, SC
from pydicom import uid

from hilum.films.read import read

FILM = dicoms.chest(bits=8)


def refused(sop: str = DX, **elements: object) -> list[str]:
    film = read(dicoms.film(FILM, sop, **elements))
    if elements.get("NumberOfFrames") is None:
        assert sorted(film.pixels.shape) == sorted(FILM.shape)  # refusing hinders no reading
    for reason in film.refusals:
        assert reason.refers and reason.text
    return [reason.code for reason in film.refusals]


@pytest.mark.parametrize(
    ("sop", "elements"),
    [
        (DX, {}),
        (CR, {}),
        (CR, {"ImageType": ["DERIVED", "PRIMARY"]}),
        (SC, {"Modality": "CR", "ConversionType": "WSD"}),
        (SC, {"Modality": "DX", "ConversionType": "DF", "ImageType": None}),
        (DX, {"Modality": "RG"}),
        (DX, {"Modality": "RF"}),
        (DX, {"Modality": None}),
        (DX, {"Modality": ""}),
        (DX, {"BodyPartExamined": ""}),
        (DX, {"BodyPartExamined": None, "ViewPosition": None, "PatientOrientation": None}),
        (DX, {"BodyPartExamined": "THORAX"}),
        (DX, {"BodyPartExamined": "Chest_PA"}),
        (DX, {"BodyPartExamined": "PORT CHEST"}),
        (DX, {"BodyPartExamined": "UNKNOWN"}),
        (CR, {"BodyPartExamined": "UNDEFINED"}),
        (DX, {"BodyPartExamined": "TORACE"}),
        (DX, {"BodyPartExamined": "CHST"}),
        (DX, {"BodyPartExamined": "THX"}),
        (DX, {"BodyPartExamined": "TORAX"}),
        (DX, {"BodyPartExamined": "BRUSTKORB"}),
        (DX, {"ViewPosition": "AP"}),
        (DX, {"ViewPosition": "AP_ERECT"}),
        (DX, {"ViewPosition": ""}),
        (DX, {"ViewCodeSequence": dicoms.code("399348003", "antero-posterior")}),
        (DX, {"ViewCodeSequence": dicoms.code("R-10214", "postero-anterior", "SRT")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("T-D3000", "Chest", "SRT")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("816094009", "Brustkorb")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("816094009", "")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("T-D3200", "Thoracic cavity", "SRT")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("C12", "Chest, portable", "99LOCAL")}),
        (DX, {"AnatomicRegionSequence": dicoms.code("", "")}),
        (DX, {"AnatomicalOrientationType": "BIPED"}),
        (DX, {"PatientOrientation": ["F", "R"]}),  # turned
        (DX, {"PatientOrientation": ["LF", "FR"]}),
        (DX, {"PatientOrientation": ["LA", "FP"]}),
        (DX, {"PatientOrientation": "R/F"}),
        (DX, {"PatientOrientation": "N/A"}),
        (DX, {"PatientOrientation": ["PA", "F"]}),  # no direction at all
        (DX, {"PatientSpeciesDescription": "Homo sapiens"}),
        (DX, {"PresentationIntentType": "FOR PRESENTATION"}),
        (DX, {"BurnedInAnnotation": "YES"}),  # a marker on a film proper
        (DX, {"SeriesDescription": "Chest PA and LAT"}),
    ],
)
def test_frontal_chest_films_pass(sop: str, elements: dict[str, object]) -> None:
    assert refused(sop, **elements) == []


@pytest.mark.parametrize(
    ("sop", "elements", "code"),
    [
        (DX, {"Modality": "CT"}, "not-a-radiograph"),
        (DX, {"Modality": "MG"}, "not-a-radiograph"),
        (DX, {"Modality": "XA"}, "not-a-radiograph"),
        (uid.MRImageStorage, {"Modality": "MR"}, "not-a-radiograph"),
        (uid.CTImageStorage, {"Modality": None}, "not-a-radiograph"),
        (DX, {"Modality": "Weird thing"}, "not-a-radiograph"),
        (SC, {"Modality": "OT"}, "secondary-capture"),
        (SC, {"Modality": None}, "secondary-capture"),
        (SC, {"Modality": "CR", "ConversionType": "SYN"}, "secondary-capture"),
        (SC, {"Modality": "CR", "ConversionType": "DV"}, "secondary-capture"),
        (
            SC,
            {"Modality": "DX", "ConversionType": "WSD", "ImageType": ["DERIVED", "SECONDARY"]},
            "secondary-capture",
        ),
        (
            SC,
            {"Modality": "CR", "ConversionType": "WSD", "BurnedInAnnotation": "YES"},
            "secondary-capture",
        ),
        (DX, {"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]}, "secondary-capture"),
        (DX, {"ImageType": ["DERIVED", "PRIMARY", "", "CAD"]}, "derived"),
        (DX, {"ImageType": ["DERIVED", "PRIMARY", "", "BONE"]}, "derived"),
        (DX, {"ImageType": ["DERIVED", "PRIMARY", "", "SOFT_TISSUE"]}, "derived"),
        (DX, {"SeriesDescription": "CHEST BONE SUPPRESSED"}, "derived"),
        (DX, {"DerivationDescription": "Dual-energy subtraction"}, "derived"),
        (DX, {"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
        (uid.DigitalXRayImageStorageForProcessing, {"Modality": "DX"}, "for-processing"),
        (DX, {"BodyPartExamined": "HIP"}, "not-chest"),
        (DX, {"BodyPartExamined": "ABDOMEN"}, "not-chest"),
        (DX, {"BodyPartExamined": "CHESTABDOMEN"}, "not-chest"),  # more than the chest
        (DX, {"BodyPartExamined": "CHEST/ABD"}, "not-chest"),
        (DX, {"BodyPartExamined": "TORACE ADDOME"}, "not-chest"),
        (DX, {"BodyPartExamined": "TSPINE"}, "not-chest"),
        (DX, {"BodyPartExamined": "RIBS"}, "not-chest"),
        (DX, {"AnatomicRegionSequence": dicoms.code("29836001", "Hip")}, "not-chest"),
        (DX, {"AnatomicRegionSequence": dicoms.code("72696002", "")}, "not-chest"),
        (DX, {"AnatomicRegionSequence": dicoms.code("72696002", "Chest")}, "not-chest"),
        (DX, {"AnatomicRegionSequence": dicoms.code("K7", "", "99LOCAL")}, "not-chest"),
        (DX, {"AnatomicRegionSequence": dicoms.code("K7", "Knie", "99LOCAL")}, "not-chest"),
        (
            DX,
            {"AnatomicRegionSequence": dicoms.code(None, "", LongCodeValue="72696002")},
            "not-chest",
        ),
        (
            DX,
            {"AnatomicRegionSequence": dicoms.code("416550000", "Chest and Abdomen")},
            "not-chest",
        ),
        (DX, {"ViewPosition": "LATERAL"}, "lateral"),
        (DX, {"ViewPosition": "LL"}, "lateral"),
        (DX, {"ViewPosition": "RL"}, "lateral"),
        (DX, {"ViewPosition": "LLAT"}, "lateral"),
        (DX, {"ViewPosition": "XTABLE LATERAL"}, "lateral"),
        (DX, {"ViewPosition": "LPO"}, "oblique"),
        (DX, {"ViewPosition": "RAO"}, "oblique"),
        (DX, {"ViewPosition": "OBLIQUE"}, "oblique"),
        (DX, {"ViewPosition": "LLD"}, "decubitus"),
        (DX, {"ViewPosition": "AP RLD"}, "decubitus"),
        (DX, {"ViewCodeSequence": dicoms.code("399067008", "seitlich")}, "lateral"),
        (DX, {"ViewCodeSequence": dicoms.code("R-10236", "left lateral", "SRT")}, "lateral"),
        (DX, {"ViewCodeSequence": dicoms.code("99X", "Left Lateral", "99LOCAL")}, "lateral"),
        (DX, {"ViewCodeSequence": dicoms.code("399182000", "oblique")}, "oblique"),
        (
            DX,
            {
                "ViewCodeSequence": dicoms.code(
                    "399348003",
                    "antero-posterior",
                    ViewModifierCodeSequence=dicoms.code("102536004", "left lateral decubitus"),
                )
            },
            "decubitus",
        ),
        (DX, {"PatientOrientation": ["A", "F"]}, "lateral"),
        (DX, {"PatientOrientation": ["P", "F"]}, "lateral"),
        (DX, {"PatientOrientation": ["F", "A"]}, "lateral"),
        (DX, {"PatientOrientation": ["F", "P"]}, "lateral"),
        (DX, {"PatientOrientation": ["H", "A"]}, "lateral"),
        (DX, {"PatientOrientation": ["H", "P"]}, "lateral"),
        (DX, {"PatientOrientation": ["AL", "F"]}, "lateral"),
        (DX, {"PatientOrientation": ["FL", "AR"]}, "lateral"),
        (DX, {"PatientOrientation": "A/F"}, "lateral"),
        (DX, {"PatientOrientation": "A"}, "lateral"),
        (DX, {"PatientOrientation": ["", "P"]}, "lateral"),
        (DX, {"PatientOrientation": ["L", "P"]}, "not-frontal"),
        (DX, {"PatientOrientation": ["A", "R"]}, "not-frontal"),
        (DX, {"PatientOrientation": ["L", "R"]}, "not-frontal"),
        (DX, {"PatientOrientation": ["H", "F"]}, "not-frontal"),
        (DX, {"PatientOrientation": ["LE", "CD"]}, "animal"),
        (DX, {"PatientOrientation": ["D", "CR"]}, "animal"),
        (DX, {"AnatomicalOrientationType": "QUADRUPED"}, "animal"),
        (DX, {"PatientSpeciesDescription": "Canis lupus familiaris"}, "animal"),
        (
            DX,
            {"PatientSpeciesCodeSequence": dicoms.code("448169003", "Felis catus")},
            "animal",
        ),
        (DX, {"AcquisitionDeviceProcessingDescription": "CANINE AP THORAX"}, "animal"),
        (DX, {"NumberOfFrames": 2}, "multi-frame"),
    ],
)
def test_other_images_are_refused(sop: str, elements: dict[str, object], code: str) -> None:
    assert refused(sop, **elements) == [code]


def test_a_view_code_that_is_not_frontal_wins_over_a_frontal_position() -> None:
    lateral = dicoms.code("399067008", "lateral")
    assert refused(ViewPosition="PA", ViewCodeSequence=lateral) == ["lateral"]


def test_a_technique_names_the_view_only_where_nothing_else_does() -> None:
    named = {"AcquisitionDeviceProcessingDescription": "THORAX LATERAL"}
    assert refused(ViewPosition="", **named) == ["lateral"]
    assert refused(ViewPosition="PA", **named) == []
    for technique in ("FLAT PANEL CHEST", "CHEST, PLATE", "THORAX INFLATED", "Lungs bilateral"):
        assert refused(ViewPosition="", AcquisitionDeviceProcessingDescription=technique) == []
    for technique in ("CHESTLAT", "W. CHEST R LAT", "APLAT"):
        named = {"AcquisitionDeviceProcessingDescription": technique}
        assert refused(ViewPosition="", **named) == ["lateral"]


def test_reports_and_files_without_pixels_are_refused_not_broken() -> None:
    ds = dicoms.header(FILM, uid.BasicTextSRStorage, Modality="SR", PixelData=None)
    film = read(dicoms.file(ds))
    assert [reason.code for reason in film.refusals] == ["no-pixels", "not-a-radiograph"]


def test_no_reason_quotes_the_header() -> None:
    film = read(dicoms.film(FILM, BodyPartExamined="DOE JOHN", Modality="SMITH"))
    assert not any(word in str(film.refusals) for word in ("DOE", "JOHN", "SMITH"))
