package extauthz

import (
	"encoding/binary"
	"errors"
)

// The samples are programs of the standard library alone, so that they stay small: these few
// lines are what they need of Protocol Buffers.

var errWire = errors.New("not a message of Protocol Buffers")

// eachField calls f with the fields of a message that have a length: texts and messages.
func eachField(m []byte, f func(number int, value []byte) error) error {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
			return errWire
		}
		m = m[n:]
		size := uint64(0)
		switch tag & 7 {
		case 0: // a number
			if _, n = binary.Uvarint(m); n <= 0 {
				return errWire
			}
			size = uint64(n)
		case 1:
			size = 8
		case 5:
			size = 4
		case 2:
			if size, n = binary.Uvarint(m); n <= 0 {
				return errWire
			}
			m = m[n:]
		default:
			return errWire
		}
		if size > uint64(len(m)) {
			return errWire
		}
		if tag&7 == 2 {
			if err := f(int(tag>>3), m[:size]); err != nil {
				return err
			}
		}
		m = m[size:]
	}
	return nil
}

func appendField(b []byte, number int, value []byte) []byte {
	b = binary.AppendUvarint(b, uint64(number)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

func appendNumber(b []byte, number int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(number)<<3), v)
}
