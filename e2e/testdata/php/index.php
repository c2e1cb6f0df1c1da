<?php
// Answers with what a PHP program reads about who sent the request.
$said = [];
foreach (['user', 'name', 'email', 'scope', 'groups'] as $what) {
    $value = $_SERVER['HTTP_REMOTE_' . strtoupper($what)] ?? '';
    if ($value !== '') {
        $said["remote-$what"] = rawurldecode($value);
    }
}
header('Content-Type: application/json');
echo json_encode($said, JSON_FORCE_OBJECT | JSON_UNESCAPED_UNICODE);
