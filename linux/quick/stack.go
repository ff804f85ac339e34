//go:build amd64 || arm64

package quick

func growStack()
