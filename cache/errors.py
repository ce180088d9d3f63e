"""What can be wrong with a store, each said in one line a user can act on."""


class StoreError(RuntimeError):
    """The store cannot be used as asked: absent, unfinished, of another make, of a newer format."""


class UnreachableError(StoreError):
    """The store does not answer; nothing is known to be lost."""


class DamagedError(StoreError):
    """Bytes of the store are lost or altered."""

    def __init__(self, message: str, address: str = "", shard: int = -1) -> None:
        """Remember which store is damaged, and which of its shards; -1 where it is none."""
        super().__init__(message)
        self.address, self.shard = address, shard
