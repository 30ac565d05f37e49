"""An index for those who serve from elsewhere: Parquet, Lance, `.npy`, Milvus, Qdrant."""

from .export import ExportOptions, ExportReport, export_index

__all__ = ["ExportOptions", "ExportReport", "export_index"]
