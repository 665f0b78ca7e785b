"""Xen's public interface as data: constants, structure layouts, error numbers.

One module per public header of Xen 4.17, named after it; no behaviour. Constants keep the header's names.
Structures are packed-as-C :class:`ctypes.LittleEndianStructure` classes in CamelCase, as a 64-bit guest sees
them. :mod:`paravirt.abi._cheader` turns the constants into a C header and a Cython ``.pxd`` at build time.
"""
