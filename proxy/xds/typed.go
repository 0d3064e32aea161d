package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// TypeName is a type URL without its host.
func TypeName(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// Expect reports a discovered configuration (config_discovery) whose type is none of its
// type_urls, in Envoy's words.
func Expect(typeURLs []string, url string) error {
	names := make([]string, len(typeURLs))
	for i, u := range typeURLs {
		names[i] = TypeName(u)
	}
	if !slices.Contains(names, TypeName(url)) {
		return fmt.Errorf("Error: filter config has type URL %s but expect %s.", TypeName(url), strings.Join(names, ", ")) //nolint:revive,staticcheck // Envoy's words
	}
	return nil
}

// Typed is the message that a TypedStruct stands for, where its type is known here, and the
// URL of that type, "" of nothing. All else is returned as it is: a message, and a TypedStruct
// for who reads its fields, which has the URL that it names. An error names the field that the
// type does not have.
func Typed(a *anypb.Any) (_ *anypb.Any, typeURL string, err error) {
	var older udpav1.TypedStruct
	var newer xdsv3.TypedStruct
	switch {
	case a.MessageIs(&older):
		if err := a.UnmarshalTo(&older); err != nil {
			return nil, "", err
		}
		return typed(a, older.GetTypeUrl(), older.GetValue())
	case a.MessageIs(&newer):
		if err := a.UnmarshalTo(&newer); err != nil {
			return nil, "", err
		}
		return typed(a, newer.GetTypeUrl(), newer.GetValue())
	}
	return a, a.GetTypeUrl(), nil
}

func typed(a *anypb.Any, url string, value *structpb.Struct) (*anypb.Any, string, error) {
	kind, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if errors.Is(err, protoregistry.NotFound) {
		return a, url, nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("type_url %q: %w", url, err)
	}
	text, err := protojson.Marshal(value)
	if err != nil {
		return nil, "", fmt.Errorf("value: %w", err)
	}
	m := kind.New().Interface()
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, "", fmt.Errorf("value of %s: %w", url, err)
	}
	body, err := anypb.New(m)
	return body, body.GetTypeUrl(), err
}
