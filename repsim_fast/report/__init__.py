"""Results for people: an HTML page, and a folder of pictures, tables and that page."""

from repsim_fast.report.folder import load_folder, write_figures, write_folder, write_table
from repsim_fast.report.page import write_report

__all__ = ["load_folder", "write_figures", "write_folder", "write_report", "write_table"]
