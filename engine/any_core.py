"""The engine that a process serves: of one device, or of a unit of ranks."""

from leadline.engine.core import EngineCore
from leadline.engine.unit.unit_core import UnitCore

AnyCore = EngineCore | UnitCore
