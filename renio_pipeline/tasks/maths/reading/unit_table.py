"""The units that are known: their names, and how those of one dimension convert."""

from __future__ import annotations

from fractions import Fraction

from renio_pipeline.tasks.maths.answers import Unit

NUMBER, ANGLE = "number", "angle"
MODULO = "modulo "  # and the modulus
_UNITS = [  # dimension, factor, names; a plural is understood
    (NUMBER, "1/100", "%"),
    (NUMBER, "100", "hundred"),
    (NUMBER, "1000", "thousand"),
    (NUMBER, "1000000", "million"),
    (NUMBER, "1000000000", "billion"),
    (NUMBER, "1000000000000", "trillion"),
    (ANGLE, "1", "° deg degree"),
    (ANGLE, "1/60", "' arcminute"),
    (ANGLE, "1/3600", "'' \" arcsecond"),
    ("length", "1/1000000000", "nm"),
    ("length", "1/1000000", "μm"),
    ("length", "1/1000", "mm millimeter millimetre"),
    ("length", "1/100", "cm centimeter centimetre"),
    ("length", "1/10", "dm"),
    ("length", "1", "m meter metre"),
    ("length", "1000", "km kilometer kilometre"),
    ("length", "127/5000", "in inch"),
    ("length", "381/1250", "ft foot feet"),
    ("length", "1143/1250", "yd yard"),
    ("length", "201168/125", "mi mile"),
    ("mass", "1/1000000", "mg milligram"),
    ("mass", "1/1000", "g gram"),
    ("mass", "1", "kg kilogram kilo"),
    ("mass", "1000", "ton tonne"),
    ("mass", "45359237/100000000", "lb pound"),
    ("mass", "45359237/1600000000", "oz ounce"),
    ("time", "1/1000", "ms millisecond"),
    ("time", "1", "s sec second"),
    ("time", "60", "min minute"),
    ("time", "3600", "h hr hour"),
    ("time", "86400", "day"),
    ("time", "604800", "week"),
    ("years", "1/12", "month"),
    ("years", "1", "year yr"),
    ("volume", "1/1000", "ml mL milliliter millilitre"),
    ("volume", "1", "l L liter litre"),
    ("speed", "1", "m/s mps"),
    ("speed", "5/18", "km/h kmh km/hr kph"),
    ("speed", "1397/3125", "mph mile/hour"),
    ("dollar", "1", "$ USD dollar buck"),
    ("dollar", "1/100", "¢ cent"),
    ("euro", "1", "€ EUR euro"),
    ("sterling", "1", "£ GBP"),
    ("yen", "1", "¥ JPY yen"),
    ("rupee", "1", "₹ INR Rs rs rupee"),
    ("Celsius", "1", "°C celsius"),
    ("Fahrenheit", "1", "°F fahrenheit"),
    ("Kelvin", "1", "K kelvin"),
]
_NOT_CONVERTED = (
    "unit N J W V A Hz Pa kPa kJ kW kWh mol bit byte KB MB GB rad radian sq square cubic cu per dozen cc rpm pt pts acre "
    "hectare gallon quart pint cup Ω eV newton joule watt volt ohm amp ampere pascal"
)
_KNOWN = {name: Unit(name, dimension, Fraction(factor)) for dimension, factor, names in _UNITS for name in names.split()} | {
    name: Unit(name) for name in _NOT_CONVERTED.split()
}


def known_unit(name: str) -> Unit | None:
    """The unit of a name, which may be a plural or in capitals; None: it is not in the table."""
    small = name.lower() if len(name) > 1 else name
    for form in (name, small, name.removesuffix("s"), small.removesuffix("s"), small.removesuffix("es")):
        if form in _KNOWN:
            return _KNOWN[form]
    return None


def is_known(unit: Unit | None) -> bool:
    """Whether a unit is in the table, or converts to one."""
    return unit is not None and (unit.dimension is not None or unit.name in _KNOWN)
