"""What all experiments share: networks trained once, cached comparisons, tables, judged claims."""
