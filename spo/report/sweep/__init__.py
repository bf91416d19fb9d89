"""A sweep as one interactive page: what its jobs left, as plain records, and the page that draws them."""
