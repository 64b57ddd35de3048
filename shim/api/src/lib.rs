//! The ttrpc protocol between coracled and coracle-shim.
