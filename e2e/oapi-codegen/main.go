// Oapi-codegen logs in with the client that oapi-codegen generates from
// /openapi.json, and prints the user, or the error:
//
//	go tool oapi-codegen -generate types,client -package main -o client.gen.go URL/openapi.json
//	go run . URL USERNAME PASSWORD
//
// The test runs in a copy of this folder, so that the client is not left here.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	ctx := context.Background()
	client, err := NewClientWithResponses(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	token, err := client.LoginTokenPostWithFormdataBodyWithResponse(ctx, LoginTokenPostFormdataRequestBody{Username: os.Args[2], Password: os.Args[3]})
	if err != nil {
		log.Fatal(err)
	}
	if token.JSON200 == nil {
		fmt.Println(token.JSON400.Error)
		return
	}
	me, err := client.ReadUsersMeUsersMeGetWithResponse(ctx, func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token.JSON200.AccessToken)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if me.JSON200 == nil {
		fmt.Println(me.JSON400.Detail)
		return
	}
	fmt.Println(me.JSON200.Username, *me.JSON200.Email, *me.JSON200.FullName, *me.JSON200.Disabled)
}
