package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// The file is a sequence of records, and nothing else:
//
//	magic   4 bytes  1e 4c 74 6e
//	length  4 bytes  of the payload, little endian
//	sum     4 bytes  CRC-32C of length and payload, little endian
//	payload          one byte of type, then fields; numbers are unsigned varints
//
// A base is the first record: version of the format, revision. Items follow, which are the objects
// at that revision: revision of the object, time to live in seconds, expiry in Unix seconds, length
// of the key, key, value. Then come the writes since, each of the next revision: a put, with the
// fields of an item, or a deletion: revision, key.
type recordType byte

const (
	recordBase recordType = iota + 1
	recordItem
	recordPut
	recordDelete
)

const (
	formatVersion = 1
	headerSize    = 12
	// maxValue is more than a request may hold (3 MiB), so that a record of that length is damage.
	maxValue   = 6 << 20
	maxKey     = 4 << 10
	maxPayload = maxValue + maxKey + 64
	maxRev     = 1 << 62
)

var (
	recordMagic = []byte{0x1e, 'L', 't', 'n'}
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)

	errShort   = errors.New("the record is cut off")
	errDamaged = errors.New("the record is damaged")
)

// A record is one of the file. Its item's value is part of the bytes it was parsed from.
type record struct {
	kind    recordType
	version uint64 // of a base
	item    item   // of a base only the revision, of a deletion also the key
}

// appendRecord adds the encoding of a record to a buffer.
func appendRecord(b []byte, r record) []byte {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, byte(r.kind))
	switch r.kind {
	case recordBase:
		b = binary.AppendUvarint(b, r.version)
		b = binary.AppendUvarint(b, r.item.rev)
	case recordItem, recordPut:
		b = binary.AppendUvarint(b, r.item.rev)
		b = binary.AppendUvarint(b, r.item.ttl)
		b = binary.AppendUvarint(b, expiry(r.item))
		b = binary.AppendUvarint(b, uint64(len(r.item.key)))
		b = append(b, r.item.key...)
		b = append(b, r.item.value...)
	case recordDelete:
		b = binary.AppendUvarint(b, r.item.rev)
		b = append(b, r.item.key...)
	}
	head := b[start:]
	binary.LittleEndian.PutUint32(head[4:], uint32(len(head)-headerSize))
	binary.LittleEndian.PutUint32(head[8:], checksum(head))
	return b
}

func expiry(it item) uint64 {
	if it.ttl == 0 {
		return 0
	}
	return uint64(max(it.expires.Unix(), 0))
}

func checksum(record []byte) uint32 {
	return crc32.Update(crc32.Checksum(record[4:8], castagnoli), castagnoli, record[headerSize:])
}

// parseRecord reads the record at the beginning of b and tells its length. errShort means that b
// may be the beginning of a record; errDamaged, that it is none.
func parseRecord(b []byte) (record, int, error) {
	n := min(len(b), len(recordMagic))
	if !bytes.Equal(b[:n], recordMagic[:n]) {
		return record{}, 0, errDamaged
	}
	if len(b) < headerSize {
		return record{}, 0, errShort
	}
	length := int(binary.LittleEndian.Uint32(b[4:]))
	switch {
	case length < 1 || length > maxPayload:
		return record{}, 0, errDamaged
	case len(b) < headerSize+length:
		return record{}, 0, errShort
	}
	b = b[:headerSize+length]
	if checksum(b) != binary.LittleEndian.Uint32(b[8:]) {
		return record{}, 0, errDamaged
	}
	r, ok := parsePayload(b[headerSize:])
	if !ok {
		return record{}, 0, errDamaged
	}
	return r, len(b), nil
}

// parsePayload reads a payload whose sum is right: what does not fit was not written by us.
func parsePayload(p []byte) (record, bool) {
	r := record{kind: recordType(p[0])}
	f := fieldReader{rest: p[1:]}
	switch r.kind {
	case recordBase:
		r.version = f.number()
		r.item.rev = f.number()
		f.bad = f.bad || r.version == formatVersion && len(f.rest) > 0
	case recordItem, recordPut:
		r.item.rev = f.number()
		r.item.ttl = f.number()
		if at := f.number(); r.item.ttl > 0 {
			r.item.expires = time.Unix(int64(min(at, maxRev)), 0)
		}
		r.item.key = string(f.take(f.number()))
		r.item.value = f.rest
	case recordDelete:
		r.item.rev = f.number()
		r.item.key = string(f.rest)
	default:
		return r, false
	}
	keyed := r.kind == recordBase || len(r.item.key) > 0 && len(r.item.key) <= maxKey
	return r, !f.bad && keyed && r.item.rev > 0 && r.item.rev <= maxRev
}

// A fieldReader reads a payload; bad stays set after the first field that is not there.
type fieldReader struct {
	rest []byte
	bad  bool
}

func (f *fieldReader) number() uint64 {
	v, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.rest = f.rest[n:]
	return v
}

func (f *fieldReader) take(n uint64) []byte {
	if n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	taken := f.rest[:n]
	f.rest = f.rest[n:]
	return taken
}

// A damagedSpan is a part of a file that holds no record.
type damagedSpan struct {
	offset, length int64
	torn           bool // the last record was not written to its end: a crash, no damage
}

// scan calls use for each record of a file's bytes and returns what lies between them. An error of
// use ends it, but for errDamaged, which says that the record is none.
func scan(b []byte, use func(record) error) ([]damagedSpan, error) {
	var damage []damagedSpan
	budget := 16*len(b) + maxPayload
	for at := 0; at < len(b); {
		r, n, err := parseRecord(b[at:])
		if err == nil {
			err = use(r)
		}
		switch {
		case err == nil:
			at += n
			continue
		case !errors.Is(err, errShort) && !errors.Is(err, errDamaged):
			return damage, fmt.Errorf("byte %d: %w", at, err)
		}
		next := nextRecord(b, at+1, &budget)
		torn := next == len(b) && (errors.Is(err, errShort) || allZero(b[at:]))
		damage = append(damage, damagedSpan{offset: int64(at), length: int64(next - at), torn: torn})
		at = next
	}
	return damage, nil
}

// nextRecord finds the first whole record at or after an offset; the end of b, when there is none.
// The budget bounds what it reads to check sums: bytes that look like many long records end the
// search.
func nextRecord(b []byte, from int, budget *int) int {
	for *budget > 0 {
		i := bytes.Index(b[from:], recordMagic)
		if i < 0 {
			break
		}
		from += i
		if _, _, err := parseRecord(b[from:]); err == nil {
			return from
		}
		if len(b)-from >= headerSize {
			*budget -= min(int(binary.LittleEndian.Uint32(b[from+4:])), len(b)-from)
		}
		from++
	}
	return len(b)
}

// allZero is true of a file's end that was made longer but not written before the power went.
func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
