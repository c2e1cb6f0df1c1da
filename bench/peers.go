package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/go-oauth2/oauth2/v4"
	"github.com/go-oauth2/oauth2/v4/manage"
	"github.com/go-oauth2/oauth2/v4/models"
	"github.com/go-oauth2/oauth2/v4/server"
	"github.com/go-oauth2/oauth2/v4/store"
	"golang.org/x/crypto/bcrypt"
)

var johndoe = []byte(`{"username":"johndoe","email":"johndoe@example.com","full_name":"John Doe","disabled":false}`)

// serveBare reads the body of every request and answers with the bytes of
// /users/me, to show what net/http alone can do in a server with this service's
// time limits.
func serveBare(addr string) {
	server := &http.Server{
		Addr: addr,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.Write(johndoe)
		}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      45 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	log.Fatal(server.ListenAndServe())
}

// serveGoOAuth2 serves the tutorial's flow with github.com/go-oauth2/oauth2 and its
// memory store.
func serveGoOAuth2(addr string) {
	hash := []byte(os.Getenv("BENCH_HASH"))
	manager := manage.NewDefaultManager()
	manager.SetPasswordTokenCfg(&manage.Config{AccessTokenExp: 30 * time.Minute})
	manager.MustTokenStorage(store.NewMemoryTokenStore())
	clients := store.NewClientStore()
	clients.Set("app", &models.Client{ID: "app", Secret: "any"})
	manager.MapClientStorage(clients)
	srv := server.NewDefaultServer(manager)
	srv.SetClientInfoHandler(server.ClientFormHandler)
	srv.SetAllowedGrantType(oauth2.PasswordCredentials)
	srv.SetPasswordAuthorizationHandler(func(_ context.Context, _, username, password string) (string, error) {
		if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil || username != "johndoe" {
			return "", errors.New("incorrect username or password")
		}
		return username, nil
	})
	http.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) { srv.HandleTokenRequest(w, r) })
	http.HandleFunc("GET /users/me", func(w http.ResponseWriter, r *http.Request) {
		if _, err := srv.ValidationBearerToken(r); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "Not authenticated", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(johndoe)
	})
	log.Fatal(http.ListenAndServe(addr, nil))
}
