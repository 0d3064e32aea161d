// Package nametable is the table of names that the control plane sends to agents, which
// answer their pods' DNS questions from it.
//
// On the wire it is the message istio.networking.nds.v1.NameTable, in the xDS resource type
// [Type]; one resource holds the whole table. The message is small and stable, so it is
// written here by its field numbers rather than generated.
package nametable

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Type is the type URL of the table in discovery requests and responses.
const Type = "type.googleapis.com/istio.networking.nds.v1.NameTable"

// Bounds of a table that is read.
const (
	maxNames     = 100_000
	maxAddresses = 10_000 // of one name
)

// A Table is the names that an agent answers by itself: fully qualified names in lower
// case, without the final dot. A name may begin with "*." and then stands for all below it.
type Table map[string]Name

// A Name is what a table says of one name.
type Name struct {
	Addresses []string // IPv4 and IPv6
	Registry  string   // where the name comes from: Kubernetes or External
	ShortName string   // of a Kubernetes Service: its name, without namespace and domain
	Namespace string   // of a Kubernetes Service
}

// Field numbers of NameTable, of its map's entries, and of NameInfo.
const (
	tableField                                                  protowire.Number = 1
	entryKey, entryValue                                        protowire.Number = 1, 2
	fieldAddress, fieldRegistry, fieldShortName, fieldNamespace protowire.Number = 1, 2, 3, 4
)

// Marshal writes a table; equal tables are equal bytes.
func Marshal(t Table) []byte {
	var out []byte
	for _, name := range slices.Sorted(maps.Keys(t)) {
		entry := appendText(nil, entryKey, name)
		entry = protowire.AppendTag(entry, entryValue, protowire.BytesType)
		entry = protowire.AppendBytes(entry, t[name].marshal())
		out = protowire.AppendTag(out, tableField, protowire.BytesType)
		out = protowire.AppendBytes(out, entry)
	}
	return out
}

func (n Name) marshal() []byte {
	var out []byte
	for _, a := range n.Addresses {
		out = protowire.AppendTag(out, fieldAddress, protowire.BytesType)
		out = protowire.AppendString(out, a)
	}
	out = appendText(out, fieldRegistry, n.Registry)
	out = appendText(out, fieldShortName, n.ShortName)
	return appendText(out, fieldNamespace, n.Namespace)
}

func appendText(out []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return out
	}
	out = protowire.AppendTag(out, field, protowire.BytesType)
	return protowire.AppendString(out, text)
}

// Unmarshal reads a table. Fields that it does not know are left out.
func Unmarshal(b []byte) (Table, error) {
	t := Table{}
	err := fields(b, func(field protowire.Number, value []byte) error {
		if field != tableField {
			return nil
		}
		if len(t) == maxNames {
			return fmt.Errorf("more than %d names", maxNames)
		}
		return t.entry(value)
	})
	if err != nil {
		return nil, fmt.Errorf("name table: %w", err)
	}
	return t, nil
}

func (t Table) entry(b []byte) error {
	var key string
	var name Name
	err := fields(b, func(field protowire.Number, value []byte) (err error) {
		switch field {
		case entryKey:
			key = string(value)
		case entryValue:
			name, err = unmarshalName(value)
		}
		return err
	})
	t[key] = name
	return err
}

func unmarshalName(b []byte) (Name, error) {
	var n Name
	err := fields(b, func(field protowire.Number, value []byte) error {
		switch field {
		case fieldAddress:
			if len(n.Addresses) == maxAddresses {
				return fmt.Errorf("a name with more than %d addresses", maxAddresses)
			}
			n.Addresses = append(n.Addresses, string(value))
		case fieldRegistry:
			n.Registry = string(value)
		case fieldShortName:
			n.ShortName = string(value)
		case fieldNamespace:
			n.Namespace = string(value)
		}
		return nil
	})
	return n, err
}

// fields calls for each field of a message that has bytes for its value.
func fields(b []byte, call func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return errors.Join(fmt.Errorf("field %d", field), protowire.ParseError(n))
		}
		if err := call(field, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
