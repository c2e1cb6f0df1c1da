package etcd

import (
	"strings"
	"testing"
)

// TestCheck checks combinations of the flags and variables.
func TestCheck(t *testing.T) {
	const (
		pair   = "-etcd-cert and -etcd-key go together: give both or neither"
		noEtcd = "-etcd-ca, -etcd-cert or OAUTH2_ETCD_USER is set, but -etcd is not"
		one    = "OAUTH2_ETCD_PASSWORD and OAUTH2_ETCD_PASSWORD_FILE: set only one of them"
		noUser = "OAUTH2_ETCD_PASSWORD or OAUTH2_ETCD_PASSWORD_FILE is set, but OAUTH2_ETCD_USER is not"
	)
	for _, tt := range []struct {
		set  string // fields, as name or name=value
		want string // the error
	}{
		{set: ""},
		{set: "Endpoints"},
		{set: "Endpoints User Password"},
		{set: "Endpoints User PasswordFile"},
		{set: "Endpoints CA"},
		{set: "Endpoints Cert Key"},
		{set: "Endpoints CA Cert Key User Password Prefix=/p/"},
		{set: "Endpoints CA Cert Key User PasswordFile Prefix=/p/"},
		{set: "Endpoints Cert", want: pair},
		{set: "Endpoints Key", want: pair},
		{set: "Cert", want: pair},
		{set: "CA", want: noEtcd},
		{set: "Cert Key", want: noEtcd},
		{set: "User", want: noEtcd},
		{set: "User Password", want: noEtcd},
		{set: "User PasswordFile", want: noEtcd},
		{set: "Prefix=/p/", want: "-etcd-prefix is set, but -etcd is not"},
		{set: "Prefix=", want: "-etcd-prefix is set, but -etcd is not"},
		{set: "Endpoints User",
			want: "OAUTH2_ETCD_USER is set, but neither OAUTH2_ETCD_PASSWORD nor OAUTH2_ETCD_PASSWORD_FILE is"},
		{set: "Endpoints User Password PasswordFile", want: one},
		{set: "Endpoints Password PasswordFile", want: one},
		{set: "Endpoints Password", want: noUser},
		{set: "Endpoints PasswordFile", want: noUser},
		{set: "Password", want: noUser},
		{set: "PasswordFile", want: noUser},
	} {
		t.Run(tt.set, func(t *testing.T) {
			c := Config{Prefix: defaultPrefix}
			fields := map[string]*string{"Endpoints": &c.Endpoints, "Prefix": &c.Prefix, "CA": &c.CA, "Cert": &c.Cert,
				"Key": &c.Key, "User": &c.User, "Password": &c.Password, "PasswordFile": &c.PasswordFile}
			for _, field := range strings.Fields(tt.set) {
				name, value, given := strings.Cut(field, "=")
				if !given {
					value = "set"
				}
				*fields[name] = value
			}
			got := ""
			if err := c.Check(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("error %q, want %q", got, tt.want)
			}
		})
	}
}
