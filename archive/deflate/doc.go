// Package deflate keeps of a gzip stream what its contents do not tell: how it was compressed. Contents and recipe together give the very bytes back, whoever compressed them.
//
// A deflate stream (RFC 1951) is a list of blocks, each a list of tokens: a byte, or "the n bytes from m bytes back". A recipe is what a predictor of tokens gets wrong. The predictors do what the
// known encoders do (zlib and GNU gzip, Go's compress/flate, klauspost/compress), so that there is next to nothing to correct; and for any other encoder, or version of
// one, there are more corrections. Which tokens a block has, whether they are predicted or corrected, says also which Huffman code its encoder would choose; what differs from that is corrected as well.
// Predictors are part of the format: a change of what one predicts is a new predictor, with a number of its own.
//
// Corrections are bits of an adaptive arithmetic coder: what always comes true costs nothing.
package deflate
