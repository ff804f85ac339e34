// Package zstandard keeps of a zstd stream what its contents do not tell: how it was compressed. Contents and recipe together give the very bytes back, whoever compressed them. It does for zstd what
// archive/deflate does for gzip.
//
// A zstd stream (RFC 8878) is a list of frames, each a list of blocks of up to 128 KiB, each a list of sequences: so many literals, then a match of some length and offset. A recipe is what a predictor
// of sequences gets wrong, and the few choices of a block that an encoder has: how literals and sequences are coded, and where tables are described anew. The tables are what the known encoders would make
// of the block's statistics; others are in the recipe as they are. A block that does not come out again by these means is in the recipe as it is, so that no stream is described wrongly.
//
// The predictors do what klauspost/compress does at all of its levels, and libzstd at 1 to 4. They have numbers that stay: a change of what one predicts is a new predictor.
package zstandard
