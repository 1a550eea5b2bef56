from tests.user_folder import _elsewhere, conf

__all__ = ["_elsewhere", "conf"]
