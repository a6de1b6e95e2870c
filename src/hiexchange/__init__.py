"""FHIR-based data exchange: bulk export, a lossless Parquet lake, roster routing, quality measures."""
