// Package erofs writes EROFS images: read-only file systems in one file that Linux mounts as it is (Documentation/filesystems/erofs.rst of the kernel has the format).
//
// An image is written in one go. What a file has in it goes to its place as it comes: whole blocks side by side, the rest of a file beside its inode, inodes in the
// order of their files. Directories come last, since only then all names are known. Nothing is compressed, and nothing but names is kept in memory.
package erofs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"gantry/errdefs"
)

// The format's numbers.
const (
	magic       = 0xe0f5e1e2
	superOffset = 1024
	superSize   = 128
	blockBits   = 12
	blockSize   = 1 << blockBits
	slotSize    = 32 // inodes are numbered by where they are, in units of this
	inodeSize   = 64 // of an extended inode
	direntSize  = 12

	compatChecksum, compatTime = 1, 2

	layoutPlain, layoutInline = 0, 2

	xattrHeader = 12
	maxXattrs   = (1<<16 - 2) * 4 // bytes of all extended attributes of an inode

	rootOffset = superOffset + superSize // the number of the root's inode has 16 bits, so it is at the beginning
	maxBlocks  = 1<<32 - 1
	maxExtent  = 16 // blocks set aside for inodes at once
)

// MaxName is the longest name in a directory, in bytes.
const MaxName = 255

// Types of inodes, as in stat(2).
const (
	typeMask = 0o170000
	fifo     = 0o010000
	charDev  = 0o020000
	dirType  = 0o040000
	blockDev = 0o060000
	regular  = 0o100000
	link     = 0o120000
	sock     = 0o140000
)

// NID is the number of an inode.
type NID uint64

// Xattr is an extended attribute.
type Xattr struct{ Name, Value string }

// Inode is what an inode says but its contents.
type Inode struct {
	Mode     uint16 // with the type, as in stat(2)
	UID, GID uint32
	Seconds  int64 // of the last change, since 1970
	Nanos    uint32
	Rdev     uint32 // of a device, as the kernel encodes it (makedev)
	Links    uint32 // names
	Xattrs   []Xattr
}

// Entry is a name in a directory.
type Entry struct {
	Name string
	NID  NID // of what is no directory
	Mode uint16
	Dir  *Dir // a directory; NID is not looked at
}

// Dir is a directory with all beneath it.
type Dir struct {
	Inode   Inode // Links is not looked at
	Entries []Entry

	parent *Dir
	nid    NID
}

// File is where an image is written to.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Writer writes one image.
type Writer struct {
	f      File
	next   int64  // the first byte, at a block's beginning, that nothing has yet
	data   []byte // of the run of data that ends at next, not yet written
	meta   []byte // of the extent of inodes that is being filled
	metaAt int64  // where it is
	used   int    // bytes of it
	extent int    // blocks of the next one
	inodes uint64
	err    error // of the first write that failed
	dry    bool  // places are given, and nothing is written
}

// NewWriter begins an image in an empty file.
func NewWriter(f File) *Writer {
	return &Writer{f: f, next: blockSize, data: make([]byte, 0, 1<<20), extent: 1}
}

// Regular adds a file of the given size with what r has. zeros says that there may be long runs of zeros, to be left as holes of the image's file.
func (w *Writer) Regular(i Inode, size int64, r io.Reader, zeros bool) (NID, error) {
	if err := check(i); err != nil {
		return 0, err
	}
	at, whole := w.next, size&^(blockSize-1)
	if (w.next+size)>>blockBits >= maxBlocks-maxExtent {
		return 0, errdefs.New(errdefs.InvalidParameter, "the image has more than %d bytes", int64(maxBlocks)<<blockBits)
	}
	for left := whole; left > 0; {
		n, err := w.fill(r, left, zeros)
		if err != nil {
			return 0, err
		}
		left -= n
	}
	tail := make([]byte, size-whole)
	if _, err := io.ReadFull(r, tail); err != nil {
		return 0, short(err)
	}
	return w.inode(i, uint64(size), uint32(at>>blockBits), tail), w.err
}

// fill reads whole blocks, at most left bytes, to the end of the data.
func (w *Writer) fill(r io.Reader, left int64, zeros bool) (int64, error) {
	if cap(w.data)-len(w.data) < blockSize {
		w.flush()
	}
	n := min(int64(cap(w.data)-len(w.data))&^(blockSize-1), left)
	if zeros {
		n = min(n, 64<<10)
	}
	piece := w.data[len(w.data) : len(w.data)+int(n)]
	if _, err := io.ReadFull(r, piece); err != nil {
		return 0, short(err)
	}
	if zeros && bytes.Count(piece, []byte{0}) == len(piece) {
		w.flush()
		w.next += n
		return n, w.err
	}
	w.data = w.data[:len(w.data)+int(n)]
	w.next += n
	return n, w.err
}

func short(err error) error {
	if err == io.EOF { //nolint:errorlint // ReadFull's own
		return io.ErrUnexpectedEOF
	}
	return err
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(i Inode, target string) (NID, error) {
	if target == "" || len(target) >= blockSize || strings.IndexByte(target, 0) >= 0 {
		return 0, errdefs.New(errdefs.InvalidParameter, "a symbolic link of %d bytes", len(target))
	}
	if err := check(i); err != nil {
		return 0, err
	}
	return w.inode(i, uint64(len(target)), 0, []byte(target)), w.err
}

// Special adds a device, FIFO or socket.
func (w *Writer) Special(i Inode) (NID, error) {
	if err := check(i); err != nil {
		return 0, err
	}
	return w.inode(i, 0, i.Rdev, nil), w.err
}

// Relink changes the number of names of an inode.
func (w *Writer) Relink(n NID, links uint32) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], links)
	w.write(b[:], int64(n)*slotSize+44)
	return w.err
}

// check judges what an inode says.
func check(i Inode) error {
	size := 0
	for _, x := range i.Xattrs {
		_, name := split(x.Name)
		if len(name) > 255 || len(x.Value) > 1<<16-1 {
			return errdefs.New(errdefs.InvalidParameter, "extended attribute %.64q has %d bytes: an EROFS image takes %d", x.Name, len(x.Value), 1<<16-1)
		}
		size += entrySize(name, x.Value)
	}
	if size > maxXattrs {
		return errdefs.New(errdefs.InvalidParameter, "extended attributes of %d bytes: an EROFS image takes %d for each file", size, maxXattrs)
	}
	return nil
}

// inode writes an inode, and the end of its contents where there is room beside it. at is the first block of the rest, or a device number.
func (w *Writer) inode(i Inode, size uint64, at uint32, tail []byte) NID {
	head := inodeSize + xattrsSize(i.Xattrs)
	inline := len(tail) > 0 && head+len(tail) <= blockSize
	if len(tail) > 0 && !inline {
		block := w.block(tail)
		if size < blockSize {
			at = block
		}
		tail = nil
	}
	off := w.place(head+len(tail), inline)
	w.put(off, encode(i, size, at, inline, w.count()), encodeXattrs(i.Xattrs), tail)
	return NID(off / slotSize)
}

func (w *Writer) count() uint32 {
	w.inodes++
	return uint32(w.inodes)
}

// block adds a block with p and zeros, and returns its number. It comes right after the data before.
func (w *Writer) block(p []byte) uint32 {
	if cap(w.data)-len(w.data) < blockSize {
		w.flush()
	}
	at := w.next
	if !w.dry {
		w.data = append(append(w.data, p...), make([]byte, blockSize-len(p))...)
	}
	w.next += blockSize
	return uint32(at >> blockBits)
}

// place finds room for n bytes of an inode; within one block when whole. A tail that follows data must still be written when it is called.
func (w *Writer) place(n int, whole bool) int64 {
	w.used = (w.used + slotSize - 1) &^ (slotSize - 1)
	if whole && w.used%blockSize+n > blockSize {
		w.used = (w.used + blockSize - 1) &^ (blockSize - 1)
	}
	if w.used+n > len(w.meta) {
		w.endExtent()
		blocks := max(w.extent, (n+blockSize-1)/blockSize)
		w.extent = min(2*w.extent, maxExtent)
		w.flush()
		w.metaAt, w.used = w.next, 0
		w.next += int64(blocks) * blockSize
		if w.dry {
			w.meta = w.meta[:0]
			w.meta = slices.Grow(w.meta, blocks*blockSize)[:blocks*blockSize]
		} else {
			w.meta = make([]byte, blocks*blockSize)
		}
	}
	off := w.metaAt + int64(w.used)
	w.used += n
	return off
}

// put writes the parts of an inode to its place in the present extent.
func (w *Writer) put(off int64, parts ...[]byte) {
	if w.dry {
		return
	}
	to := w.meta[off-w.metaAt:]
	for _, p := range parts {
		to = to[copy(to, p):]
	}
}

func (w *Writer) endExtent() {
	if !w.dry && len(w.meta) > 0 {
		w.writeAt(w.meta, w.metaAt)
	}
	w.meta = w.meta[:0]
}

// flush writes the data that waits. What comes next may be elsewhere.
func (w *Writer) flush() {
	if !w.dry && len(w.data) > 0 {
		w.writeAt(w.data, w.next-int64(len(w.data)))
	}
	w.data = w.data[:0]
}

func (w *Writer) writeAt(p []byte, off int64) {
	if w.err == nil {
		_, w.err = w.f.WriteAt(p, off)
	}
}

// write changes a few bytes that may still wait in the present extent.
func (w *Writer) write(p []byte, off int64) {
	if off >= w.metaAt && off < w.metaAt+int64(len(w.meta)) {
		copy(w.meta[off-w.metaAt:], p)
		return
	}
	w.writeAt(p, off)
}

// Close adds the directories and ends the image. id makes it known from others, and may be anything.
func (w *Writer) Close(root *Dir, id [16]byte) error {
	root.parent = root
	all := []*Dir{root} // each before what is in it
	for n := 0; n < len(all); n++ {
		d := all[n]
		d.Inode.Links = 2
		byName := func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) }
		slices.SortFunc(d.Entries, byName) // first, so that the same tree gives the same image
		for _, e := range d.Entries {
			if len(e.Name) == 0 || len(e.Name) > MaxName {
				return errdefs.New(errdefs.InvalidParameter, "a name of %d bytes", len(e.Name))
			}
			if e.Dir != nil {
				d.Inode.Links++
				e.Dir.parent = d
				all = append(all, e.Dir)
			}
		}
		d.Entries = append(d.Entries, Entry{Name: ".", Dir: d}, Entry{Name: "..", Dir: d.parent})
		slices.SortFunc(d.Entries, byName)
		if err := check(d.Inode); err != nil {
			return err
		}
	}
	if n := rootOffset + inodeSize + xattrsSize(root.Inode.Xattrs); n > blockSize {
		return errdefs.New(errdefs.InvalidParameter, "extended attributes of the root of %d bytes: an EROFS image takes %d", xattrsSize(root.Inode.Xattrs), blockSize-rootOffset-inodeSize)
	}
	first := make([]byte, blockSize)
	w.flush()
	plan := *w // gives the places, which directories name one another by
	plan.dry, plan.data, plan.meta = true, make([]byte, 0, blockSize), append([]byte(nil), w.meta...)
	for _, d := range all {
		d.nid = plan.dir(d, nil)
	}
	for _, d := range all {
		if nid := w.dir(d, first); nid != d.nid {
			return fmt.Errorf("write image: a directory is at %d instead of %d", nid, d.nid) // cannot be
		}
	}
	w.endExtent()
	w.flush()
	w.super(first, id)
	w.writeAt(first, 0)
	if w.err == nil {
		w.err = w.f.Truncate(w.next)
	}
	return w.err
}

// dir adds a directory; the root goes to the first block.
func (w *Writer) dir(d *Dir, first []byte) NID {
	head := inodeSize + xattrsSize(d.Inode.Xattrs)
	rest := blockSize - head
	if d.parent == d {
		rest -= rootOffset
	}
	at := uint32(w.next >> blockBits)
	var size uint64
	var tail []byte
	for entries := d.Entries; len(entries) > 0; {
		n, used := blockOf(entries)
		block := encodeEntries(entries[:n], used)
		entries = entries[n:]
		size += blockSize
		if len(entries) == 0 {
			size += uint64(used) - blockSize
			if used <= rest && used < blockSize {
				tail = block
				break
			}
		}
		w.block(block)
	}
	number := w.count()
	inode := encode(d.Inode, size, at, tail != nil, number)
	if d.parent == d {
		if first != nil {
			copy(first[rootOffset:], slices.Concat(inode, encodeXattrs(d.Inode.Xattrs), tail))
		}
		return rootOffset / slotSize
	}
	off := w.place(head+len(tail), tail != nil)
	w.put(off, inode, encodeXattrs(d.Inode.Xattrs), tail)
	return NID(off / slotSize)
}

// blockOf returns how many entries fit into one block of a directory, and how many bytes they take.
func blockOf(entries []Entry) (n, used int) {
	for _, e := range entries {
		if used+direntSize+len(e.Name) > blockSize {
			break
		}
		used += direntSize + len(e.Name)
		n++
	}
	return n, used
}

func encodeEntries(entries []Entry, used int) []byte {
	b := make([]byte, 0, used)
	name := len(entries) * direntSize
	for _, e := range entries {
		nid, mode := e.NID, e.Mode
		if e.Dir != nil {
			nid, mode = e.Dir.nid, dirType
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(nid))
		b = binary.LittleEndian.AppendUint16(b, uint16(name))
		b = append(b, fileType(mode), 0)
		name += len(e.Name)
	}
	for _, e := range entries {
		b = append(b, e.Name...)
	}
	return b
}

func fileType(mode uint16) byte {
	switch mode & typeMask {
	case regular:
		return 1
	case dirType:
		return 2
	case charDev:
		return 3
	case blockDev:
		return 4
	case fifo:
		return 5
	case sock:
		return 6
	case link:
		return 7
	default:
		return 0
	}
}

func encode(i Inode, size uint64, at uint32, inline bool, number uint32) []byte {
	layout := uint16(layoutPlain)
	if inline {
		layout = layoutInline
	}
	count := 0
	if n := xattrsSize(i.Xattrs); n > 0 {
		count = (n-xattrHeader)/4 + 1
	}
	b := make([]byte, 0, inodeSize)
	b = binary.LittleEndian.AppendUint16(b, 1|layout<<1) // extended
	b = binary.LittleEndian.AppendUint16(b, uint16(count))
	b = binary.LittleEndian.AppendUint16(b, i.Mode)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, size)
	b = binary.LittleEndian.AppendUint32(b, at)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint32(b, i.UID)
	b = binary.LittleEndian.AppendUint32(b, i.GID)
	b = binary.LittleEndian.AppendUint64(b, uint64(i.Seconds))
	b = binary.LittleEndian.AppendUint32(b, i.Nanos)
	b = binary.LittleEndian.AppendUint32(b, i.Links)
	return append(b, make([]byte, inodeSize-len(b))...)
}

// split takes the prefix of an attribute's name that has a number.
func split(name string) (prefix byte, rest string) {
	switch name {
	case "system.posix_acl_access":
		return 2, ""
	case "system.posix_acl_default":
		return 3, ""
	}
	for _, p := range []struct {
		text   string
		number byte
	}{{"user.", 1}, {"trusted.", 4}, {"security.", 6}} {
		if rest, ok := strings.CutPrefix(name, p.text); ok {
			return p.number, rest
		}
	}
	return 0, name
}

func entrySize(name, value string) int { return (4 + len(name) + len(value) + 3) &^ 3 }

func xattrsSize(list []Xattr) int {
	if len(list) == 0 {
		return 0
	}
	n := xattrHeader
	for _, x := range list {
		_, name := split(x.Name)
		n += entrySize(name, x.Value)
	}
	return n
}

func encodeXattrs(list []Xattr) []byte {
	if len(list) == 0 {
		return nil
	}
	b := make([]byte, xattrHeader, xattrsSize(list))
	for _, x := range list {
		prefix, name := split(x.Name)
		b = append(b, byte(len(name)), prefix)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(x.Value)))
		b = append(append(b, name...), x.Value...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

// super writes the super block, with its checksum over the rest of the first block.
func (w *Writer) super(first []byte, id [16]byte) {
	b := first[superOffset:]
	binary.LittleEndian.PutUint32(b, magic)
	binary.LittleEndian.PutUint32(b[8:], compatChecksum|compatTime)
	b[12] = blockBits
	binary.LittleEndian.PutUint16(b[14:], rootOffset/slotSize)
	binary.LittleEndian.PutUint64(b[16:], w.inodes)
	binary.LittleEndian.PutUint32(b[36:], uint32(w.next>>blockBits))
	copy(b[48:], id[:])
	binary.LittleEndian.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// Is reports whether a file begins as an EROFS image does.
func Is(r io.ReaderAt) bool {
	var b [4]byte
	_, err := r.ReadAt(b[:], superOffset)
	return err == nil && bytes.Equal(b[:], binary.LittleEndian.AppendUint32(nil, magic))
}
