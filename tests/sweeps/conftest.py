from tests.user_folder import _elsewhere

__all__ = ["_elsewhere"]
