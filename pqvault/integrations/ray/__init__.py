"""Archives on Ray: objects are sealed and checked by the workers of a cluster."""

from pqvault.integrations.ray.engine import RayEngine

__all__ = ["RayEngine"]
