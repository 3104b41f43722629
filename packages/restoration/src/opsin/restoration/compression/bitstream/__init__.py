"""From pictures to bytes and back: tables, entropy coding, the container, and the codec that joins them."""
