package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/ca"
)

// secureFlags are those of the secure port.
type secureFlags struct{ address, cert, key string }

func (f *secureFlags) add(set *pflag.FlagSet) {
	set.StringVar(&f.address, "secureGRPCAddr", ":15012", "discovery service over TLS, for proxies with a token or a certificate, and the certificate authority; empty is off")
	set.StringVar(&f.cert, "tlsCertFile", "", "certificate that --secureGRPCAddr shows, in place of one of the certificate authority")
	set.StringVar(&f.key, "tlsKeyFile", "", "private key of --tlsCertFile")
}

// options takes over what the flags and the environment say of the certificate authority.
func (f *secureFlags) options(o *control.Options) error {
	o.SecureGRPC, o.Identities = f.address, f.address != ""
	a := &o.Authority
	a.CertFile, a.KeyFile = f.cert, f.key
	if a.Directory = os.Getenv("ROOT_CA_DIR"); a.Directory == "" {
		a.Directory = "/etc/cacerts"
	}
	switch external := os.Getenv("EXTERNAL_CA"); external {
	case "":
	case "ISTIOD_RA_KUBERNETES_API":
		if a.Signer = os.Getenv("K8S_SIGNER"); a.Signer == "" {
			return errors.New("environment variable K8S_SIGNER: EXTERNAL_CA wants the name of a signer of the Kubernetes API")
		}
	default:
		return fmt.Errorf("environment variable EXTERNAL_CA: %q is not known, ISTIOD_RA_KUBERNETES_API is", external)
	}
	a.AnyNode = os.Getenv("ENABLE_XDS_IDENTITY_CHECK") == "false"
	a.Audiences, a.Hosts = words("TOKEN_AUDIENCES"), words("ISTIOD_CUSTOM_HOST")
	for name, target := range map[string]*time.Duration{
		"DEFAULT_WORKLOAD_CERT_TTL": &a.DefaultLife, "MAX_WORKLOAD_CERT_TTL": &a.MaxLife, "CITADEL_SELF_SIGNED_CA_CERT_TTL": &a.Root.Life,
	} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("environment variable %s: %q is not a duration", name, text)
		}
		*target = d
	}
	if text := os.Getenv("CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE"); text != "" {
		bits, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("environment variable CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE: %q is not a number of bits", text)
		}
		a.Root.RSABits = bits
	}
	if text := os.Getenv("JWT_RULE"); text != "" {
		var rule ca.JWTRule
		if err := json.Unmarshal([]byte(text), &rule); err != nil {
			return fmt.Errorf("environment variable JWT_RULE: %w", err)
		}
		a.JWT = append(a.JWT, rule)
	}
	return nil
}

// words are those of a variable of the environment, with commas between.
func words(name string) []string {
	return strings.FieldsFunc(os.Getenv(name), func(r rune) bool { return r == ',' || r == ' ' })
}
