"""Small DICOM files for the tests, written with pydicom alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

FRAME = "1.2.826.0.1.3680043.8.498.1"


def dose_dataset(stored: np.ndarray, **attributes) -> Dataset:
    """RT Dose with stored values [frame, row, column]; keyword attributes replace the defaults."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.481.2")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality = "RTDOSE"
    ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = generate_uid(), generate_uid(), FRAME
    frames, ds.Rows, ds.Columns = stored.shape
    ds.NumberOfFrames = frames
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * stored.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-20, -30, 5], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [2, 3]
    ds.GridFrameOffsetVector = [2.5 * k for k in range(frames)]
    ds.DoseUnits, ds.DoseType, ds.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    ds.DoseGridScaling = "0.001"
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def structure_dataset(rois: dict[str, list[tuple[str, object]]], frame: str = FRAME) -> Dataset:
    """RT Structure Set; each region is a list of (geometric type, corners of shape (n, 3))."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.481.3")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.Modality = "RTSTRUCT"
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name.rstrip("*"), frame
        ds.StructureSetROISequence.append(roi)
        item = Dataset()
        item.ReferencedROINumber = number
        if contours:
            item.ContourSequence = []
        for kind, corners in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(corners)
            contour.ContourData = [f"{v:.6f}"[:16] for v in np.asarray(corners, dtype=float).ravel()]
            item.ContourSequence.append(contour)
        ds.ROIContourSequence.append(item)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    """Write a data set as a DICOM file."""
    ds.save_as(path, enforce_file_format=True)
    return path
