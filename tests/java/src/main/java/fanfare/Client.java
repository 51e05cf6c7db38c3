package fanfare;

import io.socket.client.Ack;
import io.socket.client.IO;
import io.socket.client.Socket;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * Drives the official Java client. The lines are described in tests/lib/foreign.js.
 * Arguments: URL, token, transports.
 */
public final class Client {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] args) throws Exception {
        IO.Options options =
                IO.Options.builder()
                        .setAuth(Map.of("token", args[1]))
                        .setTransports(args[2].split(","))
                        .setForceNew(true)
                        .setReconnectionDelay(50)
                        .setReconnectionDelayMax(200)
                        .build();
        Socket socket = IO.socket(URI.create(args[0]), options);
        socket.on(Socket.EVENT_CONNECT, none -> say("connected", socket.id()));
        socket.on(Socket.EVENT_DISCONNECT, reason -> say("disconnected", reason[0]));
        socket.on(Socket.EVENT_CONNECT_ERROR, error -> say("refused", String.valueOf(error[0])));
        socket.onAnyIncoming(event -> say("event", new JSONArray(Arrays.asList(event))));
        socket.connect();

        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String text = lines.readLine(); text != null; text = lines.readLine()) {
            JSONObject line = new JSONObject(text);
            if (line.getString("do").equals("close")) {
                socket.close();
                continue;
            }
            int ref = line.getInt("ref");
            Object[] payload = {line.get("payload")};
            socket.emit(line.getString("event"), payload, (Ack) answer -> say("answer", answer[0], ref));
        }
        System.exit(0);
    }

    private static void say(String what, Object value) {
        say(what, value, null);
    }

    /** Writes one line of JSON; callbacks run on several threads. */
    private static synchronized void say(String what, Object value, Integer ref) {
        try {
            OUT.println(new JSONObject().put(what, value).putOpt("ref", ref));
        } catch (JSONException error) {
            throw new IllegalStateException(error);
        }
    }
}
