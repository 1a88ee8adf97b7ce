"""Closed-form repair with calibration data."""
