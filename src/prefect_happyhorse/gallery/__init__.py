"""The journal of a store as a page in which pictures move: served on this machine, or written as plain files. It only ever reads."""
