"""Weights and configurations from and to other libraries; nothing is unpickled."""
