package transport

import (
	"fmt"
	"io"
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// maxSource bounds a certificate, key or root file, in bytes.
const maxSource = 4 << 20

// read returns the bytes of a data source and what to call it in errors.
func read(s *corev3.DataSource) (b []byte, from string, err error) {
	switch v := s.GetSpecifier().(type) {
	case *corev3.DataSource_Filename:
		b, err := readFile(v.Filename)
		return b, v.Filename, err
	case *corev3.DataSource_InlineBytes:
		return v.InlineBytes, "<inline>", nil
	case *corev3.DataSource_InlineString:
		return []byte(v.InlineString), "<inline>", nil
	case *corev3.DataSource_EnvironmentVariable:
		return []byte(os.Getenv(v.EnvironmentVariable)), "$" + v.EnvironmentVariable, nil
	}
	return nil, "", nil
}

// ReadSource returns the bytes of a data source, at most 4 MiB; nil when none is set.
func ReadSource(s *corev3.DataSource) ([]byte, error) {
	b, _, err := read(s)
	return b, err
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSource {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxSource)
	}
	return b, nil
}
